"""What one attribute is worth to the reward model: the text is changed in it alone and scored again.

Each edit gives two texts that differ in one attribute, and the reward model scores both. The *causal price*
is the median over prompts of `r(with) - r(without)`, in SDs of the reward. A prompt counts once: its
answers' changes are averaged first. The interval is the distribution-free one between two order statistics
(exact for continuous changes, conservative with ties).

Shapes: `N` answers, `P` prompts.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attributes.text_edits import EDITS, TextEdit
from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Prompt
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored

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
        carriers: the latents with the largest mean parts of the change, largest first; all parts sum to its
            mean.
    """

    attribute: str
    edit: str
    sd: float
    low: float
    high: float
    rises: float
    n: int
    answers: int
    carriers: tuple["Carrier", ...] = ()


class Carrier(NamedTuple):
    """A latent's part of a causal price.

    Args:
        latent: its number.
        sd: mean over prompts of `w_i (z_i with - z_i without)`, reward SDs.
    """

    latent: int
    sd: float


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
    scored = _scored(rm, wanted, batch_tokens, progress)
    prices, start = [], 0
    for edit, (numbers, _, signs) in zip(edits, plans, strict=True):
        rows = np.arange(start, start + len(numbers))
        start += len(numbers)
        if scored is None or not len(rows):
            prices.append(_nothing(edit))
            continue
        own, before = scored.take(rows), data.scored.take(np.array(numbers, dtype=np.int64))
        sign = np.array(signs) / table.reward_sd
        change = sign * (own.rewards.astype(np.float64) - table.rewards[numbers])
        prompt = table.prompt[numbers]
        prices.append(_price(edit, change, prompt)._replace(carriers=_carriers(own, before, sign, prompt)))
    return tuple(prices)


def _scored(
    rm: "RewardModel",
    wanted: Sequence[tuple[Prompt, str]],
    batch_tokens: int | None,
    progress: ProgressFactory,
) -> Scored | None:
    """All changed answers in one go, or None where there are none."""
    if not wanted:
        return None
    return rm.score(
        [prompt for prompt, _ in wanted],
        [text for _, text in wanted],
        batch_tokens=batch_tokens,
        progress=progress,
    )


def _carriers(
    own: Scored, before: Scored, sign: Floats, prompt: NDArray[np.int64], most: int = 5
) -> tuple[Carrier, ...]:
    """The latents that carry the change; a prompt counts once."""
    weight = before.head.astype(np.float64)
    change = (own.latents.to_scipy() - before.latents.to_scipy()).astype(np.float64)
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    each = sign / counts[place] / len(counts)
    parts = np.asarray(change.T @ each).ravel() * weight
    largest = np.argsort(-np.abs(parts), kind="stable")[:most]
    return tuple(Carrier(int(i), float(parts[i])) for i in largest if parts[i] != 0.0)


def _drawn(prompt: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[n] whether an answer's prompt is among `most` drawn at random."""
    distinct = np.unique(prompt)
    kept = distinct if len(distinct) <= most else rng.choice(distinct, most, replace=False)
    return np.isin(prompt, kept)


def _nothing(edit: TextEdit) -> CausalPrice:
    """The price of an edit that applies to no answer."""
    nan = float("nan")
    return CausalPrice(edit.attribute, edit.words, nan, nan, nan, nan, 0, 0)


def _price(edit: TextEdit, change: Floats, prompt: NDArray[np.int64]) -> CausalPrice:
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

    Between the k-th smallest and the k-th largest, with the largest k for which `2 P(Binomial(P, 1/2) < k)
    <= 0.05`. Fewer than six numbers give no finite interval.
    """
    from scipy.stats import binom

    count, ordered = len(values), np.sort(values)
    k = int(binom.ppf((1 - _LEVEL) / 2, count, 0.5))
    while k > 0 and 2 * binom.cdf(k - 1, count, 0.5) > 1 - _LEVEL:
        k -= 1
    if k == 0:
        return float("-inf"), float("inf")
    return float(ordered[k - 1]), float(ordered[count - k])
