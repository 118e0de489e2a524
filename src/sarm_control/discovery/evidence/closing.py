"""The closing sentence that is added to answers where nobody names another one."""

from typing import Final

CLOSING: Final = "I hope this helps!"
"""Added by `sarm discover --levels 4`, and by a run's monitors where answers share no last sentence."""
