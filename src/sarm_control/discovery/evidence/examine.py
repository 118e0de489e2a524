"""Examines a discovery beyond its tests: whether the latents detect the goal, and the levels of evidence."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Row
from sarm_control.discovery.discovery import Discovery
from sarm_control.discovery.evidence.ablations import Level, LevelEffect, level_effects, levels_of
from sarm_control.discovery.evidence.closing import CLOSING
from sarm_control.discovery.evidence.counterfactuals import (
    ClosingTest,
    check_prompts,
    closing_tests,
    counterfactual_effects,
)
from sarm_control.discovery.evidence.detectability import Detectability, see
from sarm_control.discovery.features import Feature, Features
from sarm_control.errors import DataError, ModelError
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import RewardModel


class Depth(NamedTuple):
    """The levels of evidence to measure.

    Args:
        level: the highest level, 1 to 4, see `discovery.evidence.ablations`.
        counterfactuals: scored pairs of texts that differ only in the goal, for level 4.
        closing: the sentence that level 4 adds to answers.
    """

    level: int = 1
    counterfactuals: ScoredRows | None = None
    closing: str = CLOSING


@dataclass(frozen=True)
class ExaminedDiscovery:
    """A discovery with its evidence beyond the tests.

    Args:
        found: the discovery; its features list the levels that agree.
        detectability: whether the latents detect the goal; None for too few prompts.
        levels: effects of the called latents at every measured level.
        closing: the effects of a closing sentence, at level 4.
    """

    found: Discovery
    detectability: Detectability | None
    levels: tuple[LevelEffect, ...]
    closing: tuple[ClosingTest, ...]

    def as_json(self) -> dict[str, Any]:
        """The discovery and its evidence as a JSON object."""
        return {
            **self.found.as_json(),
            "detectability": None if self.detectability is None else self.detectability.as_json(),
            "levels": [one.as_json() for one in self.levels],
            "closing_sentence": [one.as_json() for one in self.closing],
        }

    def features(self, *, model: str, goal: str, data: Mapping[str, str]) -> Features:
        """The content of `features.json`.

        Args:
            model: the model's id or folder name.
            goal: what the lists promote or harm, in words.
            data: SHA-256 of each data file by name.
        """
        return Features(
            self.found.head, model, goal, self.found.lists, {**self.as_json(), "data": dict(data)}
        )


def check_states(scored: Sequence[ScoredRows], level: int) -> None:
    """Refuses levels 2 and 3 for scores without states, before anything is computed.

    Raises:
        DataError: the hint says how to get states.
    """
    if level >= 2 and any(one.scored.states is None for one in scored):
        raise DataError(
            f"--levels {level} needs the trunk's states, which a folder of latents has only when asked to",
            hint="make the folder with sarm latents --states, or give the data files",
        )


def check_counterfactuals(rows: Sequence[Row]) -> None:
    """Refuses counterfactuals of too few prompts, before they are scored.

    Raises:
        DataError: there are fewer than two.
    """
    check_prompts(len({row.prompt_key for row in rows}))


def examine(
    found: Discovery,
    model: Callable[[], RewardModel],
    depth: Depth | None = None,
    *,
    progress: ProgressFactory = no_progress,
) -> ExaminedDiscovery:
    """Checks whether the latents detect the goal, and measures the called latents at further levels.

    Args:
        found: the discovery.
        model: returns the reward model that scored the pairs; only called from level 2 on.
        depth: the levels to measure.
        progress: see `sarm_control.console.progress`.

    Raises:
        DataError: level 2 or 3 was requested and the scores have no states.
        ModelError: the model, or the model of the counterfactuals, is not the one that scored the pairs.
    """
    depth = depth or Depth()
    # before any model is loaded: scores carry the fingerprint of their head
    _check_counterfactuals(depth, found.head)
    if depth.level >= 2:
        _check_model(model(), found.head)
    called = [one for items in found.lists.values() for one in items]
    seed, pairs = found.settings.seed, found.parts.confirmation
    effects: list[LevelEffect] = []
    if depth.level >= 2:
        upto = min(depth.level, 3)
        effects += level_effects(pairs, called, model().autoencoder, upto=upto, progress=progress)
    # counterfactuals come scored, so level 4 by a file needs no model
    if depth.counterfactuals is not None:
        effects += counterfactual_effects(*depth.counterfactuals, called)
    closing: tuple[ClosingTest, ...] = ()
    if depth.level >= 4 and called:
        closing = closing_tests(pairs, called, model().score, closing=depth.closing, seed=seed)
    levels = levels_of(effects)
    lists = {name: _labelled(items, levels) for name, items in found.lists.items()}
    # the third of `parts` is the number of shared prompts
    visible = see(*found.parts[:2], min_prompts=found.settings.min_prompts, seed=seed)
    return ExaminedDiscovery(replace(found, lists=lists), visible, tuple(effects), closing)


def _check_model(model: RewardModel, head: str) -> None:
    if model.fingerprint != head:
        raise ModelError(
            f"the pairs were scored with the head {head}, the model has {model.fingerprint}",
            hint="levels above 1 need the model itself: name it with --model",
        )


def _check_counterfactuals(depth: Depth, head: str) -> None:
    other = head if depth.counterfactuals is None else depth.counterfactuals.scored.fingerprint
    if other != head:
        raise ModelError(
            f"the pairs were scored with the head {head}, the counterfactuals with {other}; "
            "their latents have other meanings",
            hint="score both with the same model",
        )


def _labelled(features: Sequence[Feature], levels: Mapping[int, tuple[Level, ...]]) -> tuple[Feature, ...]:
    """The features with the levels that agree; level 1 was decided with the effect itself and is kept."""
    deeper = {latent: tuple(level for level in of if level != "L1") for latent, of in levels.items()}
    return tuple(replace(one, levels=(*one.levels, *deeper.get(one.latent, ()))) for one in features)
