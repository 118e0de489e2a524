"""A discovery judged by the planted truth of its world."""

from collections.abc import Sequence
from typing import NamedTuple

from sarm_control.data import read_rows
from sarm_control.discovery import Discovery, Feature, material_latents
from sarm_control.lab.judges.truth import Truth
from sarm_control.lab.world import World
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel


class Called(NamedTuple):
    """The latents that a discovery called harming, judged by the planted truth.

    Args:
        latents: called, largest effect first.
        found: how many of the latents whose true d_z is <= -0.2 were called.
        harming: how many such latents there are.
        false: called latents whose true effect is not below zero by 2 standard errors.
    """

    latents: tuple[int, ...]
    found: int
    harming: int
    false: int

    @property
    def recall(self) -> float | None:
        """None when no latent harms."""
        return self.found / self.harming if self.harming else None

    @property
    def precision(self) -> float | None:
        """None when nothing was called."""
        return 1 - self.false / len(self.latents) if self.latents else None


def judge(latents: Sequence[int], truth: Truth) -> Called:
    """Judges called latents by the planted truth."""
    found = len(truth.harming & set(latents))
    false = len(set(latents) - truth.below_zero)
    return Called(tuple(latents), found, len(truth.harming), false)


def called(found: Discovery, truth: Truth, *, of_sd: float = 0.0) -> Called:
    """The latents of a discovery that harm by at least `of_sd` SDs of the reward, judged."""
    harms: tuple[Feature, ...] = material_latents(found.lists["harms"], of_sd=of_sd)
    return judge([feature.latent for feature in harms], truth)


def shipped_audit(world: World, model: RewardModel) -> ScoredRows:
    """The world's own audit set, scored."""
    rows = read_rows(world.file("audit"), want={"pair"})
    return ScoredRows(rows, score_rows(model, rows))
