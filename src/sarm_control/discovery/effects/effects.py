"""The effect of every latent on a preference, with its test, interval and kind.

Shapes: `P` prompts, `L` latents, `M` tested latents.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sarm_control.discovery.effects.effect_table import EffectTable
from sarm_control.discovery.effects.equal_length import EqualLength, equal_length_effects, length_difference
from sarm_control.discovery.effects.kinds import name_kinds, name_replicated
from sarm_control.discovery.pairs.margins import (
    PairLatents,
    active_prompts,
    auroc,
    firing_rates,
    margin_contributions,
    pair_latents,
    prompt_margins,
    rewards,
)
from sarm_control.discovery.permutation.label_tests import label_max_t_test, label_test
from sarm_control.discovery.permutation.relabelling import has_equal_sides
from sarm_control.errors import ConfigError, DataError
from sarm_control.seeds import derive_seed
from sarm_control.statistics import benjamini_hochberg, benjamini_yekutieli, mean_intervals

Columns = dict[str, NDArray[Any]]

MIN_DRAWS = 10_000
_REDRAWS = 4_000_000_000
"""The limit on redraws times prompts: 400,000 redraws of 10,000 prompts, 10 million of 400."""


class Tested(NamedTuple):
    """Effects and p-values of M latents on one set of prompts, [M] float64 each."""

    effect: NDArray[np.float64]
    p: NDArray[np.float64]


def margin_effects(
    chosen: Any,
    rejected: Any,
    chosen_prompt: ArrayLike,
    rejected_prompt: ArrayLike,
    head: ArrayLike,
    *,
    chosen_length: ArrayLike | None = None,
    rejected_length: ArrayLike | None = None,
    alpha: float = 0.05,
    min_prompts: int = 10,
    seed: int = 0,
) -> EffectTable:
    """How much each latent raises chosen above rejected answers, tested and named on the same prompts.

    The p-values are valid, but the effects of latents that are picked by their size are too large here;
    `replicated_effects` measures them on prompts that were not used to pick.

    Args:
        chosen: latents of the chosen answers: `SparseLatents`, scipy sparse or an [Nc, L] array.
        rejected: latents of the rejected answers, [Nr, L].
        chosen_prompt: [Nc] the prompt of each chosen answer; equal labels are one prompt.
        rejected_prompt: [Nr] the prompt of each rejected answer.
        head: [L] head weights.
        chosen_length: [Nc] tokens of each chosen answer, for the effects at equal length.
        rejected_length: [Nr] tokens of each rejected answer.
        alpha: the false discovery rate; latents with q at most this get a kind.
        min_prompts: latents active in fewer prompts, chosen and rejected answers together, are left out.
        seed: the same seed gives the same table.

    Returns:
        One row per tested latent: latent, weight, kind, effect (reward units, mean over prompts), low,
        high (95 % over prompts, see `statistics.intervals`; NaN where too few prompts differ), p
        (two-sided, by redrawing the labels within prompts, see `discovery.permutation.label_tests`), q
        (Benjamini-Hochberg), q_by (Benjamini-Yekutieli), p_max_t (step-down max-T), effect_sd (in SDs of
        the reward over answers), share_of_margin, d_z, rate_chosen, rate_rejected, auroc,
        effect_equal_length, equal_length_low, equal_length_high (see
        `discovery.effects.equal_length`; NaN without lengths), n_prompts_active.

    Raises:
        ConfigError: alpha outside (0, 1), or min_prompts below 1.
        DataError: sizes that do not fit, prompt labels that cannot be sorted, a prompt without both kinds
            of answer, or fewer than two prompts.
    """
    _check_alpha(alpha)
    pairs = pair_latents(
        chosen,
        rejected,
        chosen_prompt,
        rejected_prompt,
        head,
        chosen_length=chosen_length,
        rejected_length=rejected_length,
    )
    _check_prompts(pairs, "the data has")
    latents = latents_to_test(pairs, min_prompts)
    draws = enough_draws(len(latents), alpha, pairs.prompts, tails=tails_of(pairs))
    tested = _tested(pairs, latents, draws, seed)
    tests = _corrected(pairs, latents, tested.p, seed)
    kinds = name_kinds(pairs.head[latents], tested.effect, tests["q"] <= alpha)
    described = _described(pairs, latents)
    counts: Columns = {"n_prompts_active": active_prompts(pairs)[latents]}
    return _table(pairs, latents, kinds, described, tests, counts)


def replicated_effects(
    selection: PairLatents,
    confirmation: PairLatents,
    *,
    alpha: float = 0.05,
    min_prompts: int = 10,
    seed: int = 0,
) -> EffectTable:
    """Latents selected on some prompts, with effects measured on others.

    A latent is *selected* when q <= alpha on the selection prompts (Benjamini-Hochberg
    over all tested latents) and *confirmed* when on the confirmation prompts its effect
    has the same sign and q_confirm <= alpha (two-sided, over the selected latents only).

    Args:
        selection: answers to the prompts used to select.
        confirmation: answers to other prompts, scored by the same head.
        alpha: false discovery rate of both steps.
        min_prompts: latents active in fewer selection prompts, chosen and rejected answers together, are
            left out.
        seed: the same seed gives the same table.

    Returns:
        The columns of `margin_effects`, and selection_effect, p_confirm and q_confirm (the last two are NaN
        for a latent that was not selected). p, q, q_by, p_max_t and n_prompts_active are of the selection
        prompts; effect, low, high, effect_sd, share_of_margin, d_z, the rates, auroc and the effects at equal
        length are of the confirmation prompts.

    Raises:
        ConfigError: alpha outside (0, 1), or min_prompts below 1.
        DataError: the two parts were scored by different heads, or one has fewer than two prompts.
    """
    _check_alpha(alpha)
    _check_parts(selection, confirmation)
    latents = latents_to_test(selection, min_prompts)
    prompts = max(selection.prompts, confirmation.prompts)
    # one number of draws for both parts, so that p-values of both have the same resolution
    draws = enough_draws(len(latents), alpha, prompts, tails=tails_of(selection, confirmation))
    first = _tested(selection, latents, draws, seed)
    tests = _corrected(selection, latents, first.p, seed)
    selected = tests["q"] <= alpha
    p_confirm, q_confirm = np.full((2, len(latents)), math.nan)
    # only the selected latents are tested again: the correction then counts these tests alone
    p_confirm[selected] = _tested(confirmation, latents[selected], draws, derive_seed(seed, "confirm")).p
    q_confirm[selected] = benjamini_hochberg(p_confirm[selected])
    # Effects come from the confirmation prompts alone. On the prompts that selected them the largest effects
    # are also the luckiest, and would be quoted too large.
    described = _described(confirmation, latents)
    kinds = name_replicated(
        selection.head[latents], first.effect, described["effect"], selected, q_confirm <= alpha
    )
    others: Columns = {
        "selection_effect": first.effect,
        "n_prompts_active": active_prompts(selection)[latents],
        "p_confirm": p_confirm,
        "q_confirm": q_confirm,
    }
    return _table(confirmation, latents, kinds, described, tests, others)


def latents_to_test(pairs: PairLatents, min_prompts: int) -> NDArray[np.int64]:
    """[M] latents active in at least `min_prompts` prompts.

    Labels are not used: a filter that saw them would make the p-values invalid.
    """
    if min_prompts < 1:
        raise ConfigError(f"min_prompts is {min_prompts}, wants at least 1")
    return np.flatnonzero(active_prompts(pairs) >= min_prompts)


def enough_draws(tests: int, alpha: float, prompts: int, *, tails: int = 1) -> int:
    """The number of label redraws with which one latent among `tests` can reach q <= alpha on its own.

    The number is smaller where that many are too slow to draw. Then the smallest q of a single latent is
    `tests tails / (draws + 1)`, unless its Hoeffding bound is so small that it needs no draws (see
    `label_test`).

    Args:
        tests: number of latents that are tested together.
        alpha: the false discovery rate.
        prompts: number of prompts whose labels are redrawn.
        tails: 2 where p is twice the p-value of one tail, see `tails_of`.
    """
    most = max(MIN_DRAWS, _REDRAWS // max(prompts, 1))
    # the factor 2 leaves a margin: with tests / alpha draws, no redraw at all could reach the observed sum
    return int(np.clip(math.ceil(2 * tails * tests / alpha), MIN_DRAWS, most))


def tails_of(*parts: PairLatents) -> int:
    """1 where every prompt has as many chosen as rejected answers, so that the test uses `|sum|`; else 2."""
    return 1 if all(map(has_equal_sides, parts)) else 2


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha}, wants a rate between 0 and 1", hint="try alpha 0.05")


def _check_parts(selection: PairLatents, confirmation: PairLatents) -> None:
    if not np.array_equal(selection.head, confirmation.head):
        raise DataError("selection and confirmation were scored by different heads")
    for name, part in (("selection", selection), ("confirmation", confirmation)):
        _check_prompts(part, f"the {name} part has")


def _check_prompts(pairs: PairLatents, who_has: str) -> None:
    if pairs.prompts < 2:
        raise DataError(
            f"{who_has} {pairs.prompts} prompts, wants at least 2",
            hint="give more pairs: every distinct prompt counts once",
        )


def _tested(pairs: PairLatents, latents: NDArray[np.int64], draws: int, seed: int) -> Tested:
    columns = margin_contributions(pairs)[:, latents]
    effect = np.asarray(columns.sum(axis=0)).ravel() / max(pairs.prompts, 1)
    return Tested(effect, label_test(pairs, latents, draws=draws, seed=seed))


def _corrected(pairs: PairLatents, latents: NDArray[np.int64], p: NDArray[np.float64], seed: int) -> Columns:
    """The p-values, and the same corrected for M tests in three ways."""
    return {
        "p": p,
        "q": benjamini_hochberg(p),
        "q_by": benjamini_yekutieli(p),
        "p_max_t": label_max_t_test(pairs, latents, seed=seed),
    }


def _described(pairs: PairLatents, latents: NDArray[np.int64]) -> Columns:
    contributions = margin_contributions(pairs)
    columns = contributions[:, latents]
    effect = np.asarray(columns.sum(axis=0)).ravel() / pairs.prompts
    intervals = mean_intervals(columns)
    rates = firing_rates(pairs)
    equal = _at_equal_length(pairs, columns)
    return {
        "effect": effect,
        "low": intervals.low,
        "high": intervals.high,
        "effect_sd": _ratio(effect, reward_sd(pairs)),
        "share_of_margin": _ratio(effect, float(prompt_margins(pairs).mean())),
        "d_z": _standardised(columns, effect),
        "rate_chosen": rates.chosen[latents],
        "rate_rejected": rates.rejected[latents],
        "auroc": auroc(pairs, latents),
        "effect_equal_length": equal.effect,
        "equal_length_low": equal.low,
        "equal_length_high": equal.high,
        "prompts_for_interval": intervals.enough,
    }


def _at_equal_length(pairs: PairLatents, columns: Any) -> EqualLength:
    difference = length_difference(pairs)
    if difference is None:
        unknown = np.full(columns.shape[1], math.nan)
        return EqualLength(unknown, unknown, unknown)
    return equal_length_effects(columns, difference)


def reward_sd(pairs: PairLatents) -> float:
    """SD (n-1) of the reward over all answers."""
    all_rewards = np.concatenate(rewards(pairs))
    return float(all_rewards.std(ddof=1)) if len(all_rewards) > 1 else 0.0


def _standardised(columns: Any, effect: NDArray[np.float64]) -> NDArray[np.float64]:
    """[M] d_z, the mean over prompts in units of its SD (n-1) over prompts; 0 where the SD is 0."""
    count = columns.shape[0]
    squares = np.asarray(columns.multiply(columns).sum(axis=0)).ravel()
    deviations = np.maximum(squares - count * effect**2, 0)
    sd = np.sqrt(deviations / max(count - 1, 1))
    # a constant column leaves rounding of this size, not a spread
    usable = deviations > 1e-12 * squares
    return np.where(usable, effect / np.where(usable, sd, 1.0), 0.0)


def _ratio(values: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    return values / unit if unit else np.full(len(values), math.nan)


def _table(
    pairs: PairLatents,
    latents: NDArray[np.int64],
    kinds: NDArray[np.str_],
    described: Columns,
    tests: Columns,
    others: Columns,
) -> EffectTable:
    effects = {name: described.pop(name) for name in ("effect", "low", "high")}
    first: Columns = {"latent": latents, "weight": pairs.head[latents], "kind": kinds}
    return EffectTable({**first, **effects, **tests, **described, **others})
