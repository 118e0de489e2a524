"""TODO."""

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
