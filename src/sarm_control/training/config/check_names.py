"""The names of the monitors, in a module of their own: reading a configuration loads no monitor."""

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
    "residual",
]

RENAMED = {"hugging": "threshold-hugging", "siblings": "similar-latents", "suffix": "closing-sentence"}
"""Old and new names of monitors; the old ones are accepted for one version, with a warning."""
