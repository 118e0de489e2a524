"""Alive checks: what goes wrong when a policy trains against latents, seen while it happens.

One check a file, each a pure function of numbers that returns a `Finding`; `Watch` remembers.
"""

from typing import Final, get_args

from sarm_control.ppo.alive.crowding_out import BeforeTopK, crowding_out
from sarm_control.ppo.alive.dead_penalty import dead_penalty
from sarm_control.ppo.alive.finding import Check, Finding
from sarm_control.ppo.alive.hugging import hugging
from sarm_control.ppo.alive.length import length
from sarm_control.ppo.alive.over_refusal import over_refusal, refuses
from sarm_control.ppo.alive.proxy_gap import Gains, proxy_gap
from sarm_control.ppo.alive.saturated import saturated
from sarm_control.ppo.alive.siblings import sibling_latents, siblings
from sarm_control.ppo.alive.suffix import suffix
from sarm_control.ppo.alive.watch import Watch

CHECKS: Final[tuple[Check, ...]] = get_args(Check)
"""Their names."""

__all__ = [
    "CHECKS",
    "BeforeTopK",
    "Check",
    "Finding",
    "Gains",
    "Watch",
    "crowding_out",
    "dead_penalty",
    "hugging",
    "length",
    "over_refusal",
    "proxy_gap",
    "refuses",
    "saturated",
    "sibling_latents",
    "siblings",
    "suffix",
]
