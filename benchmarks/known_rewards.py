"""Reward models that are a number for every text, and exact intervals of counts: audits against a truth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.data import Row
from sarm_control.embedded import LAB
from sarm_control.reward_model import RewardModel, Scored, SparseLatents

Floats = NDArray[np.float64]
Key = tuple[str, str]
"""A prompt and an answer."""


class Known:
    """A reward model that is a number for every text that it will be asked for.

    Args:
        place: text -> its place.
        rewards: [T] by place.
    """

    def __init__(self, place: Mapping[Key, int], rewards: Floats) -> None:
        self._place, self._rewards = place, rewards

    def score(self, prompts: Sequence[Any], responses: Sequence[str], **_: Any) -> Scored:
        """The numbers of these texts; no latents."""
        rows = [self._place[str(prompt), text] for prompt, text in zip(prompts, responses, strict=True)]
        rewards, zeros = self._rewards[rows], np.zeros(len(rows), dtype=np.int64)
        none = SparseLatents(np.zeros(len(rows) + 1, dtype=np.int64), *_nothing(), 0)
        return Scored(
            rewards.astype(np.float32),
            none,
            np.zeros(0, dtype=np.float32),
            zeros,
            np.ones(len(rows), dtype=np.bool_),
            zeros,
            "known",
            residual=rewards,
            kind="classifier",
        )

    def __getattr__(self, name: str) -> Any:
        # the reward after every token of an example needs a trunk: the lab's, whose numbers nobody reads here
        return getattr(lab(), name)


def _nothing() -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)


_LOADED: list[RewardModel] = []


def lab() -> RewardModel:
    """The lab's SARM, loaded once."""
    if not _LOADED:
        _LOADED.append(RewardModel.from_pretrained(LAB, device="cpu"))
    return _LOADED[0]


def pair_row(number: int, prompt: str, chosen: str, rejected: str) -> Row:
    """A pair as if it were the line of a file."""
    return Row(Path("pool.jsonl"), number, {}, "pair", prompt, chosen=(chosen,), rejected=(rejected,))


def exact(count: int, of: int) -> list[float]:
    """Clopper and Pearson's 95 % interval."""
    from scipy.stats import binomtest

    ends = binomtest(count, of).proportion_ci(0.95)
    return [float(ends.low), float(ends.high)]
