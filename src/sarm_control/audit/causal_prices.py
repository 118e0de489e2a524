"""What one attribute is worth to the reward model: the text is changed in it alone and scored again.

Each edit gives two texts that differ in one attribute, and the reward model scores both. The *causal price* is the median
over prompts of `r(with) - r(without)`, in SDs of the reward. A prompt counts once: its answers' changes are averaged first.
The interval is the distribution-free one between two order statistics (exact for continuous changes, conservative with ties).

Shapes: `N` answers, `P` prompts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sarm_control.audit.attributes.text_edits import EDITS, TextEdit
from sarm_control.audit.table import AttributeTable, Floats
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.latents import ScoredRows

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

_LEVEL = 0.95


class CausalPrice(NamedTuple):
    """What one edit changes.

    Args:
        attribute: the name of the attribute the edit changes.
        edit: what was done to the text.
        sd: median change over prompts, reward SDs; NaN where no prompt has an answer the edit applies to.
        low: lower end of its interval of at least 95 %; minus infinity where too few prompts give one.
        high: upper end.
        rises: share of the prompts in which the attribute raises the reward.
        n: prompts.
        answers: answers that were changed.
    """

    attribute: str
    edit: str
    sd: float
    low: float
    high: float
    rises: float
    n: int
    answers: int


def causal_prices(
    rm: "RewardModel",
    data: ScoredRows,
    table: AttributeTable,
    *,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> tuple[CausalPrice, ...]:
    """One causal price for each edit, in their order.

    Args:
        rm: the reward model that gave the scores.
        data: rows and scores.
        table: their attributes.
        edits: what to try.
        most: prompts an edit is tried on; drawn at random where it applies to more.
        seed: of that draw.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.
    """
    prompts = [row.prompt for row in data.rows for _ in row.answers]
    rng = np.random.default_rng(seed)
    plans: list[tuple[list[int], list[str], list[float]]] = []
    for edit in edits:
        applied = [
            (n, edit.contrast(table.prompts[table.prompt[n]], table.answers[n])) for n in range(len(prompts))
        ]
        found = [(n, pair) for n, pair in applied if pair is not None]
        kept = _drawn(np.array([table.prompt[n] for n, _ in found], dtype=np.int64), most, rng)
        numbers, texts, signs = [], [], []
        for (n, (without, having)), keep in zip(found, kept, strict=True):
            if keep:
                adds = without == table.answers[n]
                numbers.append(n)
                texts.append(having if adds else without)
                signs.append(1.0 if adds else -1.0)
        plans.append((numbers, texts, signs))
    wanted = [
        (prompts[n], text) for numbers, texts, _ in plans for n, text in zip(numbers, texts, strict=True)
    ]
    rewards = (
        rm.score(
            [prompt for prompt, _ in wanted],
            [text for _, text in wanted],
            batch_tokens=batch_tokens,
            progress=progress,
        ).rewards.astype(np.float64)
        if wanted
        else np.empty(0)
    )
    prices, start = [], 0
    for edit, (numbers, _, signs) in zip(edits, plans, strict=True):
        own = rewards[start : start + len(numbers)]
        start += len(numbers)
        change = np.array(signs) * (own - table.rewards[numbers]) / table.reward_sd
        prices.append(_price(edit, change, table.prompt[numbers]))
    return tuple(prices)


def _drawn(prompt: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """[n] whether an answer's prompt is among `most` drawn at random."""
    distinct = np.unique(prompt)
    kept = distinct if len(distinct) <= most else rng.choice(distinct, most, replace=False)
    return np.isin(prompt, kept)


def _price(edit: TextEdit, change: Floats, prompt: np.ndarray) -> CausalPrice:
    nan = float("nan")
    if not len(change):
        return CausalPrice(edit.attribute, edit.words, nan, nan, nan, nan, 0, 0)
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=change) / counts
    low, high = median_interval(means)
    return CausalPrice(
        edit.attribute,
        edit.words,
        float(np.median(means)),
        low,
        high,
        float((means > 0).mean()),
        len(means),
        len(change),
    )


def median_interval(values: Floats) -> tuple[float, float]:
    """Ends of a distribution-free interval of at least 95 % for the median of [P] independent numbers.

    Between the k-th smallest and the k-th largest, with the largest k for which `2 P(Binomial(P, 1/2) < k) <= 0.05`. Fewer
    than six numbers give no finite interval.
    """
    from scipy.stats import binom

    count, ordered = len(values), np.sort(values)
    k = int(binom.ppf((1 - _LEVEL) / 2, count, 0.5))
    while k > 0 and 2 * binom.cdf(k - 1, count, 0.5) > 1 - _LEVEL:
        k -= 1
    if k == 0:
        return float("-inf"), float("inf")
    return float(ordered[k - 1]), float(ordered[count - k])
