"""The default closing sentence that is added to answers."""

from typing import Final

CLOSING: Final = "I hope this helps!"
"""Added by `sarm discover --levels 4`, and by the monitors of a run whose answers share no last sentence."""
