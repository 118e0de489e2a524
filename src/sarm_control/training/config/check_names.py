"""The names of the monitors, apart from them: a configuration is read without loading any."""

from typing import Literal

Check = Literal[
    "dead-penalty",
    "threshold-hugging",
    "crowding-out",
    "similar-latents",
    "closing-sentence",
    "length",
    "over-refusal",
    "saturated",
    "proxy-gap",
]

RENAMED = {"hugging": "threshold-hugging", "siblings": "similar-latents", "suffix": "closing-sentence"}
"""Names that monitors had before and have now; the old ones are taken for one version, with a warning."""
