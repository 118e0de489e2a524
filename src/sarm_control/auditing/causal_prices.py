"""What one attribute is worth to the reward model: the text is changed in it alone and scored again.

Each edit gives two texts that differ in one attribute, and the reward model scores both. The *causal price*
is the median over prompts of `r(with) - r(without)`, in SDs of the reward. A prompt counts once: its
answers' changes are averaged first. The interval is the distribution-free one between two order statistics
(exact for continuous changes, conservative with ties).

Of an edit with several wordings the price is that of their mean: the median over *sets*, which are prompts
that have every wording together (see `wordings`), and so are its interval and its test. Each wording has a
price of its own, over the prompts of its answers.

Shapes: `N` answers, `P` prompts, `n` changed texts, `W` wordings, `S` sets.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attributes.text_edits import EDITS, Contrast, TextEdit
from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.auditing.wordings import (
    differ_p,
    drawn_wordings,
    means_of_sets,
    sets_of,
    wordings_each,
)
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import Prompt
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import Scored
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import benjamini_hochberg, counted

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

_LEVEL = 0.95


class WordingPrice(NamedTuple):
    """What one wording of an edit changes.

    Args:
        text: that is put in.
        edit: what is done with it, for tables.
        sd: median change over the prompts of its answers, reward SDs.
        low: lower end of its interval; those of all wordings of an edit hold together in 95 of 100.
        high: upper end.
        n: prompts.
        p: two-sided p of the sign test over prompts.
        q: the same after Benjamini and Hochberg, as in `CausalPrice`; NaN before that.
    """

    text: str
    edit: str
    sd: float
    low: float
    high: float
    n: int
    p: float
    q: float = math.nan


class CausalPrice(NamedTuple):
    """What one edit changes.

    Args:
        attribute: the name of the attribute the edit changes.
        edit: what was done to the text.
        sd: median change over prompts, reward SDs; with several wordings that of their mean, over sets. NaN
            where no prompt has an answer the edit applies to.
        low: lower end of its interval of at least 95 %; minus infinity where too few prompts give one.
        high: upper end.
        rises: share of the prompts in which the attribute raises the reward.
        n: prompts.
        answers: changed texts; with several wordings an answer may be changed more than once.
        p: two-sided p of the exact sign test over prompts (or sets), which the interval inverts; those
            without a change do not count.
        q: the same after Benjamini and Hochberg over all text edits of an audit and all their wordings; NaN
            before that.
        carriers: the latents with the largest mean parts of the change, largest first; all parts sum to its
            mean.
        sets: what the median is over: sets of prompts, or the prompts themselves without wordings.
        wordings: one price for each that was tried; none where the edit has no wordings.
        rest: the price of the mean of all wordings but the dearest; it says whether that one is alone.
        differ_p: p of Friedman's test that the wordings are worth the same; NaN without wordings.
        differ_q: the same after Benjamini and Hochberg over all edits with wordings; NaN before that.
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
    sets: int = 0
    wordings: tuple[WordingPrice, ...] = ()
    rest: WordingPrice | None = None
    differ_p: float = math.nan
    differ_q: float = math.nan


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
        wording: [n] which of the edit's wordings; None where it has none.
    """

    edit: TextEdit
    prompt: NDArray[np.int64]
    texts: tuple[Contrast, ...]
    without: Scored
    having: Scored
    wording: NDArray[np.int64] | None = None

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

    @cached_property
    def sets(self) -> NDArray[np.int64]:
        """[n] the set of each text; a prompt is a set of its own where there are no wordings."""
        if self.wording is None:
            return np.asarray(np.unique(self.prompt, return_inverse=True)[1])
        return sets_of(self.prompt, self.wording)

    def by_wording(self, values: Floats) -> Floats:
        """[S, W] means of `values` [n] in each set, of the wordings that occur; W is 1 without wordings."""
        wording = np.zeros_like(self.prompt) if self.wording is None else self.wording
        return means_of_sets(values, wording, self.sets)

    def done(self, place: int) -> str:
        """What was done to one of the texts, in words."""
        if self.wording is None:
            return self.edit.words
        return self.edit.wordings[int(self.wording[place])].words

    def of(self, kept: NDArray[np.bool_]) -> "ScoredContrast":
        """The chosen answers [n] of it."""
        rows = np.flatnonzero(kept)
        return ScoredContrast(
            self.edit,
            self.prompt[rows],
            tuple(self.texts[i] for i in rows),
            self.without.take(rows),
            self.having.take(rows),
            None if self.wording is None else self.wording[rows],
        )


class _Change(NamedTuple):
    """One changed text: of which answer, the answer without and with the attribute, and which wording."""

    answer: int
    texts: Contrast
    wording: int = 0


def scored_contrasts(
    rm: "RewardModel",
    data: ScoredRows,
    table: AttributeTable,
    *,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
    all_wordings: bool = False,
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
        seed: of that draw, and of which answer gets which wording.
        all_wordings: whether each answer gets every wording; else as many as `wordings_each` says.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.
    """
    prompts = [row.prompt for row in data.rows for _ in row.answers]
    # one stream for all edits: audits change the same answers only with the same edits, see `price_changes`
    rng = np.random.default_rng(seed)
    plans: list[list[_Change]] = []
    applied: list[list[_Change]] = [[] for _ in edits]
    for n, answer in enumerate(table.answers):  # what is parsed of an answer is remembered until the next
        for found, edit in zip(applied, edits, strict=True):
            pair = edit.contrast(table.prompts[table.prompt[n]], answer)
            if pair is not None:
                found.append(_Change(n, pair))
    for edit, found in zip(edits, applied, strict=True):
        kept = _drawn(np.array([table.prompt[one.answer] for one in found], dtype=np.int64), most, rng)
        plan = [one for one, keep in zip(found, kept, strict=True) if keep]
        plans.append(_worded(edit, plan, table, seed, all_wordings) if edit.wordings else plan)
    changed = [
        # one text of the two is the answer as it was, whose score is known
        (prompts[n], without if having == table.answers[n] else having)
        for plan in plans
        for n, (without, having), _ in plan
    ]
    scored = _scored(rm, changed, batch_tokens, progress)
    ends = np.cumsum([0, *map(len, plans)])
    return tuple(
        None
        if scored is None or not plan
        else _contrast(edit, plan, scored.take(np.arange(start, end)), data, table)
        for edit, plan, start, end in zip(edits, plans, ends[:-1], ends[1:], strict=True)
    )


def _worded(
    edit: TextEdit, plan: Sequence[_Change], table: AttributeTable, seed: int, every: bool
) -> list[_Change]:
    """The same answers, each with the wordings that are drawn for it."""
    rows = sorted((one.answer for one in plan), key=lambda n: table.prompt[n])
    count, prompts = len(edit.wordings), len({int(table.prompt[n]) for n in rows})
    each = count if every else wordings_each(len(rows), prompts, count)
    # by their texts, so that the order in which somebody lists them decides nothing
    order = sorted(range(count), key=lambda at: edit.wordings[at].text)
    # a stream for each edit: which answer gets which wording does not depend on what else is tried
    drawn = drawn_wordings(len(rows), count, each, numpy_generator(seed, "wordings of an edit"))
    pairs = [(n, order[rank]) for n, ranks in zip(rows, drawn.tolist(), strict=True) for rank in ranks]
    made = (
        (n, edit.wordings[at].contrast(table.prompts[table.prompt[n]], table.answers[n]), at)
        for n, at in pairs
    )
    return [_Change(n, texts, at) for n, texts, at in made if texts is not None]


def _contrast(
    edit: TextEdit,
    plan: Sequence[_Change],
    changed: Scored,
    data: ScoredRows,
    table: AttributeTable,
) -> ScoredContrast:
    numbers = np.array([one.answer for one in plan], dtype=np.int64)
    # rows 0..n-1 are the answers as they were, n..2n-1 the changed ones; two selections put each on its
    # side
    both = Scored.concatenate([data.scored.take(numbers), changed])
    own, other = np.arange(len(plan)), np.arange(len(plan)) + len(plan)
    # whether the answer as it was is the one without the attribute
    adds = np.array([one.texts[0] == table.answers[one.answer] for one in plan])
    return ScoredContrast(
        edit,
        table.prompt[numbers],
        tuple(one.texts for one in plan),
        both.take(np.where(adds, own, other)),
        both.take(np.where(adds, other, own)),
        np.array([one.wording for one in plan], dtype=np.int64) if edit.wordings else None,
    )


def price_of(contrast: ScoredContrast, reward_sd: float) -> CausalPrice:
    """The causal price of an edit and the latents that carry it.

    Args:
        contrast: what was scored.
        reward_sd: one SD of the reward.
    """
    price = worded_price(contrast, contrast.change / reward_sd)
    return price._replace(carriers=_carriers(contrast, reward_sd))


def worded_price(contrast: ScoredContrast, change: Floats) -> CausalPrice:
    """The same as `price_from`, with a price for each wording and the test whether they differ."""
    price = price_from(contrast, change)
    if contrast.wording is None:
        return price
    wordings = _wording_prices(contrast, change)
    table = contrast.by_wording(change)
    return price._replace(wordings=wordings, rest=_rest(table, wordings), differ_p=differ_p(table))


def causal_prices(
    rm: "RewardModel",
    data: ScoredRows,
    table: AttributeTable,
    *,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
    all_wordings: bool = False,
) -> tuple[CausalPrice, ...]:
    """One causal price for each edit, in their order; see `scored_contrasts`."""
    found = scored_contrasts(rm, data, table, edits=edits, most=most, seed=seed, all_wordings=all_wordings)
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
    """The causal price where the answers' rewards change by `change` [n], reward SDs.

    Without carriers, and of several wordings only that of their mean.
    """
    means = _means_of_prompts(contrast.prompt, change)
    # over wordings first: a set has some of them more often than others
    units = contrast.by_wording(change).mean(axis=1)
    low, high = median_interval(units)
    return CausalPrice(
        contrast.edit.attribute,
        contrast.edit.words,
        float(np.median(units)),
        low,
        high,
        float((means > 0).mean()),
        len(means),
        len(change),
        _sign_test(units),
        sets=len(units),
    )


def _means_of_prompts(prompt: NDArray[np.int64], change: Floats) -> Floats:
    """[P] a prompt counts once: its answers' changes are averaged."""
    _, place, counts = np.unique(prompt, return_inverse=True, return_counts=True)
    return np.asarray(np.bincount(place, weights=change) / counts)


def _wording_prices(contrast: ScoredContrast, change: Floats) -> tuple[WordingPrice, ...]:
    """Of each wording that was tried, in the edit's order."""
    assert contrast.wording is not None
    tried = np.unique(contrast.wording).tolist()
    # so that all of them hold together (Bonferroni): the dearest of several is read first
    level = 1 - (1 - _LEVEL) / len(tried)
    prices = []
    for number in tried:
        rows, one = contrast.wording == number, contrast.edit.wordings[number]
        means = _means_of_prompts(contrast.prompt[rows], change[rows])
        prices.append(_wording_price(one.text, one.words, means, level))
    return tuple(prices)


def _rest(table: Floats, wordings: Sequence[WordingPrice]) -> WordingPrice | None:
    """The mean of all wordings but the dearest, of [S, W] means; None where one alone was tried."""
    others = len(wordings) - 1
    if not others:
        return None
    dearest = int(np.argmax([one.sd for one in wordings]))
    units = np.delete(table, dearest, axis=1).mean(axis=1)
    said = f"the other {counted(others, 'wording')}" if others > 1 else "the other wording"
    return _wording_price("", said, units, _LEVEL)


def _wording_price(text: str, edit: str, values: Floats, level: float) -> WordingPrice:
    ends = median_interval(values, level)
    return WordingPrice(text, edit, float(np.median(values)), *ends, len(values), _sign_test(values))


def corrected(prices: Sequence[CausalPrice]) -> tuple[CausalPrice, ...]:
    """The prices with their q: an audit that tries many edits, in many wordings, finds some by chance."""
    # an edit that applied to no answer tested nothing, and would raise the q of all others
    tested = [one for one in prices if one.n]
    # one family: a headline may come from the mean over wordings or from one of them
    family = [p for one in tested for p in (one.p, *(each.p for each in one.wordings))]
    q = iter(benjamini_hochberg(np.array(family)))
    compared = [one.differ_p for one in tested if math.isfinite(one.differ_p)]
    differ = iter(benjamini_hochberg(np.array(compared)))
    return tuple(_with_q(one, q, differ) if one.n else one for one in prices)


def _with_q(one: CausalPrice, q: Iterator[float], differ: Iterator[float]) -> CausalPrice:
    """The price with the next numbers of both: its own, those of its wordings, that of their difference."""
    own = float(next(q))
    wordings = tuple(each._replace(q=float(next(q))) for each in one.wordings)
    compared = math.isfinite(one.differ_p)
    return one._replace(q=own, wordings=wordings, differ_q=float(next(differ)) if compared else math.nan)


def _sign_test(values: Floats) -> float:
    from scipy.stats import binomtest

    more, less = int((values > 0).sum()), int((values < 0).sum())
    return float(binomtest(more, more + less, 0.5).pvalue) if more + less else 1.0


def median_interval(values: Floats, level: float = _LEVEL) -> tuple[float, float]:
    """Ends of a distribution-free interval for the median of [P] independent numbers.

    Between the k-th smallest and the k-th largest, with the largest k for which `2 P(Binomial(P, 1/2) < k)
    <= 1 - level`. Fewer than six numbers give no finite interval of 95 %.

    Args:
        values: the numbers.
        level: that the interval has at least.
    """
    from scipy.stats import binom

    count, ordered = len(values), np.sort(values)
    # that is the largest such k already, but for rounding, which the loop mends
    k = int(binom.ppf((1 - level) / 2, count, 0.5))
    while k > 0 and 2 * binom.cdf(k - 1, count, 0.5) > 1 - level:
        k -= 1
    if k == 0:
        return float("-inf"), float("inf")
    return float(ordered[k - 1]), float(ordered[count - k])
