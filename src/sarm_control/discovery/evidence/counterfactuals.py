"""Level 4 of evidence: the text itself is changed, and the called latents are read again.

There are two changes: pairs of texts that differ only in the goal, from a file, and a built-in one, a closing
sentence that is added to or removed from the answers. A latent that a polite last sentence switches on or off
does not depend on the content of the answer.

Shapes: `N` answers, `C` called latents.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sarm_control.data import Prompt, Row
from sarm_control.discovery.evidence.ablations import LevelEffect, effects_of
from sarm_control.discovery.evidence.closing import CLOSING
from sarm_control.discovery.features import Feature
from sarm_control.discovery.pairs.prompt_pairs import PromptPairs, group_by_prompt
from sarm_control.errors import DataError
from sarm_control.reward_model import Scored
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import Interval, clustered_mean

CLOSING_PROMPTS = 200
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# A benign sentence that moves a latent by half of the effect for which it was called moves it too much.
_LARGE = 0.5

Score = Callable[[Sequence[Prompt], Sequence[str]], Scored]


class Moved(NamedTuple):
    """How a change of the text changes the contribution of one latent.

    Args:
        latent: its number.
        contributions: change of `w z`, mean over prompts, reward units.
        large: the interval excludes 0, and the change is at least half of the latent's effect.
    """

    latent: int
    contributions: Interval
    large: bool

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {**self._asdict(), "contributions": self.contributions.as_json()}


@dataclass(frozen=True)
class ClosingTest:
    """The result of adding a closing sentence to answers, or of removing their last sentence.

    Args:
        change: "added" or "removed".
        sentence: the added sentence; empty for "removed".
        answers: number of answers that were changed.
        reward: change of the reward, mean over prompts.
        latents: the change of each called latent.
    """

    change: str
    sentence: str
    answers: int
    reward: Interval
    latents: tuple[Moved, ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        plain = {"change": self.change, "sentence": self.sentence, "answers": self.answers}
        moved = [one.as_json() for one in self.latents]
        return {**plain, "reward": self.reward.as_json(), "latents": moved}


def check_prompts(prompts: int) -> None:
    """Refuses too few prompts.

    Raises:
        DataError: fewer than two.
    """
    if prompts < 2:
        raise DataError(f"the counterfactuals have {prompts} prompts, want at least 2")


def counterfactual_effects(
    rows: Sequence[Row], scored: Scored, features: Sequence[Feature]
) -> list[LevelEffect]:
    """Effects of called latents on pairs of texts that differ only in the goal.

    Args:
        rows: pairs; chosen is the text changed towards the goal, rejected the same text changed away.
        scored: their scores.
        features: the called latents.

    Raises:
        DataError: fewer than two prompts.
    """
    pairs = group_by_prompt(rows, scored)
    check_prompts(len(pairs))
    latents = np.array([one.latent for one in features], dtype=np.int64)
    if not len(latents):
        return []
    sides = {"chosen": pairs.latents.chosen, "rejected": pairs.latents.rejected}
    contributions = {name: matrix[:, latents] * pairs.latents.head[latents] for name, matrix in sides.items()}
    return effects_of(pairs.latents, contributions, features, "L4", "the text changed in the goal alone")


def closing_tests(
    pairs: PromptPairs,
    features: Sequence[Feature],
    score: Score,
    *,
    closing: str = CLOSING,
    seed: int = 0,
) -> tuple[ClosingTest, ...]:
    """How a closing sentence changes the called latents and the reward, on at most 200 prompts.

    Args:
        pairs: the confirmation prompts.
        features: the called latents.
        score: scores answers to prompts with the same model.
        closing: the sentence to add.
        seed: of the draw of prompts.
    """
    some = _some(pairs, seed)
    added = [f"{text} {closing}".strip() for text in _texts(some)]
    removed = [_without_last_sentence(text) for text in _texts(some)]
    return tuple(
        _test(some, features, score, change, sentence, texts)
        for change, sentence, texts in (("added", closing, added), ("removed", "", removed))
        if any(text is not None for text in texts)
    )


def _some(pairs: PromptPairs, seed: int) -> PromptPairs:
    if len(pairs) <= CLOSING_PROMPTS:
        return pairs
    drawn = numpy_generator(seed, "closing prompts").choice(len(pairs), CLOSING_PROMPTS, replace=False)
    return pairs.take(np.sort(drawn))


def _texts(pairs: PromptPairs) -> tuple[str, ...]:
    return pairs.chosen.texts + pairs.rejected.texts


def _without_last_sentence(text: str) -> str | None:
    """The text up to its last sentence; None when it has only one."""
    sentences = _SENTENCE_END.split(text.strip())
    # cut off the text itself: sentences joined again would have other white space, which is another text
    return text[: text.rindex(sentences[-1])].rstrip() if len(sentences) > 1 else None


def _test(
    pairs: PromptPairs,
    features: Sequence[Feature],
    score: Score,
    change: str,
    sentence: str,
    texts: Sequence[str | None],
) -> ClosingTest:
    numbers = np.concatenate([pairs.chosen.numbers, pairs.rejected.numbers])
    asked = pairs.chosen.prompts + pairs.rejected.prompts
    prompts = np.concatenate([pairs.latents.chosen_prompt, pairs.latents.rejected_prompt])
    # an answer of one sentence has no last one to remove, so it is left out of that test
    changed = np.array([j for j, text in enumerate(texts) if text is not None], dtype=np.int64)
    after = score([asked[j] for j in changed], [text for text in texts if text is not None])
    # the answers' own scores serve as the state before the change; only the changed texts are scored
    before = pairs.scored.take(numbers[changed])
    latents = [one.latent for one in features]
    weight = pairs.latents.head[latents]
    moved = (after.latents.columns(latents).astype(np.float64) - before.latents.columns(latents)) * weight
    reward = after.rewards.astype(np.float64) - before.rewards
    return ClosingTest(
        change=change,
        sentence=sentence,
        answers=len(changed),
        reward=clustered_mean(reward, prompts[changed]),
        latents=tuple(
            _moved(one, clustered_mean(moved[:, c], prompts[changed])) for c, one in enumerate(features)
        ),
    )


def _moved(one: Feature, contributions: Interval) -> Moved:
    clear = contributions.low > 0 or contributions.high < 0
    return Moved(
        one.latent, contributions, bool(clear and abs(contributions.mean) >= _LARGE * abs(one.effect))
    )
