"""What one attribute is worth to the reward model: the text is changed in it alone and scored again.

Each edit gives two texts that differ in one attribute, and the reward model scores both. The *causal price*
is the median over prompts of `r(with) - r(without)`, in SDs of the reward. A prompt counts once: its
answers' changes are averaged first. The interval is the distribution-free one between two order statistics
(exact for continuous changes, conservative with ties).

Shapes: `N` answers, `P` prompts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attributes.text_edits import EDITS, Contrast, TextEdit
from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Prompt
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored
from sarm_control.statistics import benjamini_hochberg

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
        p: two-sided p of the exact sign test over prompts, which the interval inverts; prompts without a
            change do not count.
        q: the same after Benjamini and Hochberg over all text edits of an audit; NaN before that.
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
    p: float = math.nan
    q: float = math.nan
    carriers: tuple["Carrier", ...] = ()


class Carrier(NamedTuple):
    """A latent's part of a causal price.

    Args:
        latent: its number.
        sd: mean over prompts of `w_i (z_i with - z_i without)`, reward SDs.
    """

    latent: int
    sd: float


@dataclass(frozen=True)
class ScoredContrast:
    """The answers an edit was tried on, with and without the attribute, and what both are worth.

    Args:
        edit: what was done.
        prompt: [n] the prompt of each answer, as the table numbers them.
        texts: [n] the answer without, and with it.
        without: [n] scores of the answers without it.
        having: [n] scores of the answers with it.
    """

    edit: TextEdit
    prompt: NDArray[np.int64]
    texts: tuple[Contrast, ...]
    without: Scored
    having: Scored

    @property
    def change(self) -> Floats:
        """[n] `r(with) - r(without)`, reward units."""
        return self.having.rewards.astype(np.float64) - self.without.rewards

    @property
    def latent_changes(self) -> Any:
        """[n, L] `z(with) - z(without)`, a scipy array."""
        return (self.having.latents.to_scipy() - self.without.latents.to_scipy()).astype(np.float64)

    @property
    def weights(self) -> Floats:
        """[n] of each answer in a mean over prompts; they sum to 1."""
        # 1 / answers of the prompt / prompts: prompts count alike, however many of their answers were
        # changed
        _, place, counts = np.unique(self.prompt, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[place] / len(counts))

    def of(self, kept: NDArray[np.bool_]) -> "ScoredContrast":
        """The chosen answers [n] of it."""
        rows = np.flatnonzero(kept)
        texts = tuple(self.texts[i] for i in rows)
        return ScoredContrast(
            self.edit, self.prompt[rows], texts, self.without.take(rows), self.having.take(rows)
        )


def scored_contrasts(
    rm: "RewardModel",
    data: ScoredRows,
    table: AttributeTable,
    *,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> tuple[ScoredContrast | None, ...]:
    """Tries each edit and scores the changed answers; None for an edit that applies to no answer.

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
    # one stream for all edits: audits change the same answers only with the same edits, see `price_changes`
    rng = np.random.default_rng(seed)
    plans = []
    applied: list[list[tuple[int, Contrast]]] = [[] for _ in edits]
    for n, answer in enumerate(table.answers):  # what is parsed of an answer is remembered until the next
        for found, edit in zip(applied, edits, strict=True):
            pair = edit.contrast(table.prompts[table.prompt[n]], answer)
            if pair is not None:
                found.append((n, pair))
    for found in applied:
        kept = _drawn(np.array([table.prompt[n] for n, _ in found], dtype=np.int64), most, rng)
        plans.append([one for one, keep in zip(found, kept, strict=True) if keep])
    changed = [
        # one text of the two is the answer as it was, whose score is known
        (prompts[n], without if having == table.answers[n] else having)
        for plan in plans
        for n, (without, having) in plan
    ]
    scored = _scored(rm, changed, batch_tokens, progress)
    ends = np.cumsum([0, *map(len, plans)])
    return tuple(
        None
        if scored is None or not plan
        else _contrast(edit, plan, scored.take(np.arange(start, end)), data, table)
        for edit, plan, start, end in zip(edits, plans, ends[:-1], ends[1:], strict=True)
    )


def _contrast(
    edit: TextEdit,
    plan: Sequence[tuple[int, Contrast]],
    changed: Scored,
    data: ScoredRows,
    table: AttributeTable,
) -> ScoredContrast:
    numbers = np.array([n for n, _ in plan], dtype=np.int64)
    # rows 0..n-1 are the answers as they were, n..2n-1 the changed ones; two selections put each on its
    # side
    both = Scored.concatenate([data.scored.take(numbers), changed])
    own, other = np.arange(len(plan)), np.arange(len(plan)) + len(plan)
    # whether the answer as it was is the one without the attribute
    adds = np.array([pair[0] == table.answers[n] for n, pair in plan])
    return ScoredContrast(
        edit,
        table.prompt[numbers],
        tuple(pair for _, pair in plan),
        both.take(np.where(adds, own, other)),
        both.take(np.where(adds, other, own)),
    )


def price_of(contrast: ScoredContrast, reward_sd: float) -> CausalPrice:
    """The causal price of an edit and the latents that carry it.

    Args:
        contrast: what was scored.
        reward_sd: one SD of the reward.
    """
    price = price_from(contrast, contrast.change / reward_sd)
    return price._replace(carriers=_carriers(contrast, reward_sd))


def causal_prices(
    rm: "RewardModel",
    data: ScoredRows,
    table: AttributeTable,
    *,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
) -> tuple[CausalPrice, ...]:
    """One causal price for each edit, in their order; see `scored_contrasts`."""
    found = scored_contrasts(rm, data, table, edits=edits, most=most, seed=seed)
    return tuple(
        no_price(edit) if one is None else price_of(one, table.reward_sd)
        for edit, one in zip(edits, found, strict=True)
    )


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


def _carriers(contrast: ScoredContrast, reward_sd: float, most: int = 5) -> tuple[Carrier, ...]:
    """The latents that carry the change; a prompt counts once."""
    weight = contrast.having.head.astype(np.float64)
    parts = np.asarray(contrast.latent_changes.T @ contrast.weights).ravel() * weight / reward_sd
    largest = np.argsort(-np.abs(parts), kind="stable")[:most]
    return tuple(Carrier(int(i), float(parts[i])) for i in largest if parts[i] != 0.0)


def _drawn(prompt: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """[n] whether an answer's prompt is among `most` drawn at random."""
    distinct = np.unique(prompt)
    # prompts and not answers: the interval is over prompts, and would gain nothing by more answers to the
    # same
    kept = distinct if len(distinct) <= most else rng.choice(distinct, most, replace=False)
    return np.isin(prompt, kept)


def no_price(edit: TextEdit) -> CausalPrice:
    """The price of an edit that applies to no answer."""
    nan = float("nan")
    return CausalPrice(edit.attribute, edit.words, nan, nan, nan, nan, 0, 0)


def price_from(contrast: ScoredContrast, change: Floats) -> CausalPrice:
    """The causal price where the answers' rewards change by `change` [n], reward SDs; without carriers."""
    _, place, counts = np.unique(contrast.prompt, return_inverse=True, return_counts=True)
    means = np.bincount(place, weights=change) / counts
    low, high = median_interval(means)
    return CausalPrice(
        contrast.edit.attribute,
        contrast.edit.words,
        float(np.median(means)),
        low,
        high,
        float((means > 0).mean()),
        len(means),
        len(change),
        _sign_test(means),
    )


def corrected(prices: Sequence[CausalPrice]) -> tuple[CausalPrice, ...]:
    """The prices with their q: an audit that tries many edits finds some by chance."""
    # an edit that applied to no answer tested nothing, and would raise the q of all others
    tested = [place for place, one in enumerate(prices) if one.n]
    q = dict(zip(tested, benjamini_hochberg(np.array([prices[i].p for i in tested])), strict=True))
    return tuple(one._replace(q=float(q[i])) if i in q else one for i, one in enumerate(prices))


def _sign_test(values: Floats) -> float:
    from scipy.stats import binomtest

    more, less = int((values > 0).sum()), int((values < 0).sum())
    return float(binomtest(more, more + less, 0.5).pvalue) if more + less else 1.0


def median_interval(values: Floats) -> tuple[float, float]:
    """Ends of a distribution-free interval of at least 95 % for the median of [P] independent numbers.

    Between the k-th smallest and the k-th largest, with the largest k for which `2 P(Binomial(P, 1/2) < k)
    <= 0.05`. Fewer than six numbers give no finite interval.
    """
    from scipy.stats import binom

    count, ordered = len(values), np.sort(values)
    # that is the largest such k already, but for rounding, which the loop mends
    k = int(binom.ppf((1 - _LEVEL) / 2, count, 0.5))
    while k > 0 and 2 * binom.cdf(k - 1, count, 0.5) > 1 - _LEVEL:
        k -= 1
    if k == 0:
        return float("-inf"), float("inf")
    return float(ordered[k - 1]), float(ordered[count - k])
