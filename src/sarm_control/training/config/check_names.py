"""The names of the monitors, apart from them: a configuration is read without loading any."""

from typing import Literal

Check = Literal[
    "dead-penalty",
    "hugging",
    "crowding-out",
    "siblings",
    "suffix",
    "length",
    "over-refusal",
    "saturated",
    "proxy-gap",
]
