"""A check before any figure: whether the scores of a model depend on how its inputs are batched.

Scores that depended on the batch, on the padding side or on a second begin-of-text token have changed
leaderboards. Eight short answers show it in seconds.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sarm_control.data import Row
from sarm_control.evaluation.answer_places import Floats, Integers
from sarm_control.reward_model import PaddingSide, RewardModel

ANSWERS = 8
TOLERANCE_SD = 0.01
"""Differences of scores above this many of their SDs give a warning."""
_ONE_BATCH = sys.maxsize


@dataclass(frozen=True)
class SelfCheck:
    """The result of the check on a few answers.

    Args:
        answers: number of answers scored.
        batching: largest difference between a score alone and in a batch, reward units.
        padding: largest difference between left and right padding, reward units.
        sd: SD (n - 1) of these scores, the unit of the tolerance.
        begin_tokens: every number of begin-of-text tokens with which a conversation starts. 1 is right, and 0
            where the template writes none.
        has_begin_token: whether the tokenizer has one.
        template: 16 hex digits of the SHA-256 of the chat template.
        dtype: of the trunk.
        rows_cut: number of answers of the whole data that were cut to fit the context.
        rows_scored: number of answers of the whole data.
    """

    answers: int
    batching: float
    padding: float
    sd: float
    begin_tokens: tuple[int, ...]
    has_begin_token: bool
    template: str
    dtype: str
    rows_cut: int
    rows_scored: int

    @property
    def problems(self) -> list[str]:
        """What makes every figure wrong; empty where nothing does."""
        problems = []
        for name, size in (("the batch", self.batching), ("the padding side", self.padding)):
            # `not <=` is true for NaN too
            if not size <= TOLERANCE_SD * self.sd:
                problems.append(
                    f"scores depend on {name}: they differ by up to {size:.2g} (SD {self.sd:.2g})"
                    + ("" if self.dtype == "float32" else f" in {self.dtype}; try --dtype float32")
                )
        # a template that writes the token and a tokenizer that adds it give two, which changes
        # every score and raises no error
        if len(self.begin_tokens) > 1 or max(self.begin_tokens) > 1:
            problems.append(f"conversations start with {self._counts} begin-of-text tokens")
        return problems

    @property
    def remarks(self) -> list[str]:
        """What a reader should know beside the figures, which stay right: how many answers were cut."""
        return [f"{self._cut} from the left to fit the context"] if self.rows_cut else []

    @property
    def _cut(self) -> str:
        were = "was" if self.rows_cut == 1 else "were"
        return f"{self.rows_cut:,} of {self.rows_scored:,} answers {were} cut"

    @property
    def _counts(self) -> str:
        return " or ".join(map(str, self.begin_tokens))

    def line(self) -> str:
        """The check in one line."""
        begin = (
            f"{self._counts} begin-of-text" if self.has_begin_token else "no begin-of-text in this tokenizer"
        )
        return (
            f"self-check on {self.answers} answers ({self.dtype}): batch 1 against {self.answers} "
            f"{self.batching:.2g}, left against right padding {self.padding:.2g}, {begin}, "
            f"template {self.template}, {self.rows_cut:,} of {self.rows_scored:,} answers cut"
        )

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            **asdict(self),
            "begin_tokens": list(self.begin_tokens),
            "problems": self.problems,
            "remarks": self.remarks,
        }

    def after_scoring(self, truncated: Integers) -> "SelfCheck":
        """The check with what only the scoring of the whole data tells.

        Args:
            truncated: [N] tokens cut of each answer.
        """
        return replace(self, rows_cut=int((truncated > 0).sum()), rows_scored=len(truncated))


def self_check(rm: RewardModel, rows: Sequence[Row], rows_cut: int = 0) -> SelfCheck:
    """Scores eight of the shorter answers one by one, in one batch, and padded on the other side.

    Args:
        rm: the model.
        rows: rows with answers.
        rows_cut: number of answers that were cut when all were scored.
    """
    pairs = sorted(((row.prompt, answer) for row in rows for answer in row.answers), key=_size)
    # of the shorter half, which takes little time, and of different lengths, so that there is padding
    places = np.unique(np.linspace(0, (len(pairs) - 1) // 2, ANSWERS).astype(int))
    prompts, answers = zip(*(pairs[place] for place in places), strict=True)

    def scored(budget: int, side: PaddingSide) -> Floats:
        scores = rm.score(prompts, answers, batch_tokens=budget, padding_side=side)
        return scores.rewards.astype(np.float64)

    # a budget of one token still takes one answer a pass
    alone, right, left = scored(1, "right"), scored(_ONE_BATCH, "right"), scored(_ONE_BATCH, "left")
    begin = rm.template.bos_id
    encoded = [
        rm.template.encode(prompt, answer).input_ids for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return SelfCheck(
        answers=len(answers),
        batching=float(np.abs(alone - right).max()),
        padding=float(np.abs(left - right).max()),
        sd=float(alone.std(ddof=1)) if len(alone) > 1 else 0.0,
        begin_tokens=tuple(sorted({_leading(ids, begin) for ids in encoded})),
        has_begin_token=begin is not None,
        # scores under another template are other scores: with the hash two reports can be told apart
        template=hashlib.sha256(str(rm.template.tokenizer.chat_template).encode()).hexdigest()[:16],
        dtype=str(next(rm.trunk.parameters()).dtype).removeprefix("torch."),
        rows_cut=rows_cut,
        rows_scored=len(pairs),
    )


def _leading(ids: Sequence[int], begin: int | None) -> int:
    """The number of leading begin-of-text tokens; ChatML may repeat the token in later turns."""
    return next((place for place, token in enumerate(ids) if token != begin), len(ids))


def _size(pair: tuple[Any, str]) -> int:
    return len(str(pair[0])) + len(pair[1])
