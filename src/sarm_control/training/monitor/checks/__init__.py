"""Monitors: they detect while a policy trains how it may get around the controls on latents.

There is one monitor a file, a pure function of numbers that returns a `Finding`. `Watch` keeps the state.
"""

from typing import Final, get_args

from sarm_control.training.config.check_names import Check
from sarm_control.training.monitor.checks.closing_sentence import check_closing_sentence
from sarm_control.training.monitor.checks.crowding_out import BeforeTopK, crowding_out
from sarm_control.training.monitor.checks.dead_penalty import dead_penalty
from sarm_control.training.monitor.checks.discriminator_saturation import saturated
from sarm_control.training.monitor.checks.finding import Finding
from sarm_control.training.monitor.checks.length_bias import length
from sarm_control.training.monitor.checks.over_refusal import over_refusal, refuses
from sarm_control.training.monitor.checks.proxy_gap import Gains, proxy_gap
from sarm_control.training.monitor.checks.residual_gain import residual_gain
from sarm_control.training.monitor.checks.similar_latents import check_similar_latents, find_similar_latents
from sarm_control.training.monitor.checks.threshold_hugging import check_threshold_hugging
from sarm_control.training.monitor.checks.watch import Watch

CHECKS: Final[tuple[Check, ...]] = get_args(Check)
"""The names of the monitors."""

__all__ = [
    "CHECKS",
    "BeforeTopK",
    "Check",
    "Finding",
    "Gains",
    "Watch",
    "check_closing_sentence",
    "check_similar_latents",
    "check_threshold_hugging",
    "crowding_out",
    "dead_penalty",
    "find_similar_latents",
    "length",
    "over_refusal",
    "proxy_gap",
    "refuses",
    "residual_gain",
    "saturated",
]
