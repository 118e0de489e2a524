"""`estimate_kl`: how far a policy's latents lie from human ones, with an interval.

Shapes: `P` policy rows, `H` human rows, `D` latents.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.estimators import ESTIMATORS, Estimator
from sarm_control.control.density_ratio.jackknife import CrossFit, HeldOut, SampleRows, cross_fit, held_out
from sarm_control.control.density_ratio.logistic import Array, Logistic
from sarm_control.control.density_ratio.mahalanobis import Mahalanobis
from sarm_control.control.density_ratio.model_check.linearity import Rows, check_linear
from sarm_control.control.density_ratio.model_check.wider import wider_held_out
from sarm_control.control.density_ratio.separation import (
    SEPARATED_ACCURACY,
    area_under_curve,
    balanced_accuracy,
    calibration_slope,
    effective_sample_size,
    is_saturated,
    lower_bound,
    sure_bound,
)
from sarm_control.errors import ConfigError, DataError, ModelError
from sarm_control.latents import SMALLEST_BUFFER, HumanBuffer, check_finite, check_known
from sarm_control.notebooks import html_table, number, span
from sarm_control.reward_model import Scored, SparseLatents

Latents = NDArray[np.floating[Any]] | SparseLatents | Scored
# with fewer, the width of the interval varies more from draw to draw
GROUPS = 8
_MOST_LATENTS = 256
_LEAST_FIRINGS = 10
_FAR_APART_L2 = 30.0


@dataclass(frozen=True, eq=False)
class KLEstimate:
    """An estimate of `KL(policy || human)` in nats.

    Args:
        value: the mean over policy rows of the held-out log ratio; may be slightly negative when the
            samples are alike. When `saturated`, or when `model_fits` is False, a lower bound: see
            `lower_bound` and `sure_bound`.
        low: end of the interval.
        high: end of the interval; infinite where `value` is a lower bound.
        accuracy: held-out balanced accuracy of the classifier between policy and human, 0.5 to 1.
        auc: held-out area under the ROC curve.
        saturated: the samples are too far apart for their sizes, and `value` is a lower bound.
        log_ratio: [P] held-out `log p_policy / p_human` of each policy row, unbiased and noisy.
        human_log_ratio: [H] the same of each human row.
        slope: 0 to 1, the factor that makes a row's log ratio the best guess for that row.
        effective_sample_size: the number of human rows when each is weighted by its density ratio (Kish).
        coverage: of the latents that fire in policy rows, the share that fires in human rows too.
        latents: the D latents compared; columns of the arrays when arrays were given.
        level: of the interval.
        model_fits: False where the log ratio is not linear in the features, so that the estimator sees only
            a part of the divergence; True where the check found nothing against it; None where it is not
            known: too few rows are in doubt to show it, or the check does not apply to the estimator.
        wider: where `model_fits` is False, the mean over policy rows of held-out log ratios with shapes,
            products and waves as further columns (see `model_check`); nats. It is usually nearer to the
            truth, but it is no bound. Else None.
    """

    value: float
    low: float
    high: float
    accuracy: float
    auc: float
    saturated: bool
    log_ratio: Array
    human_log_ratio: Array
    slope: float
    effective_sample_size: float
    coverage: float
    latents: tuple[int, ...]
    level: float
    model_fits: bool | None = None
    wider: float | None = None

    @property
    def bound(self) -> bool:
        """Whether `value` is only a lower bound."""
        return self.saturated or self.model_fits is False

    def __repr__(self) -> str:
        """One line: value, interval, sizes and how well the samples are separated."""
        sizes = f"{len(self.log_ratio)} policy and {len(self.human_log_ratio)} human rows"
        value = f"at least {self.value:.3g}" if self.bound else f"{self.value:.3g}"
        interval = f"[{self.low:.3g}, {self.high:.3g}]"
        quality = f"accuracy {self.accuracy:.3f}, auc {self.auc:.3f}, saturated={self.saturated}"
        fits = f"model_fits={self.model_fits}"
        return f"KLEstimate({value} nats {interval}, {len(self.latents)} latents, {sizes}, {quality}, {fits})"

    def _repr_html_(self) -> str:
        """The estimate in a notebook, with what it rests on."""
        rows = [
            ("KL(policy || human)", f"{'at least ' if self.bound else ''}{number(self.value, '.3g')} nats"),
            (f"{self.level:.0%} interval", span(self.low, self.high, ".3g")),
            ("rows", f"{len(self.log_ratio)} of the policy, {len(self.human_log_ratio)} human"),
            ("latents compared", len(self.latents)),
            ("held-out accuracy, AUC", f"{self.accuracy:.3f}, {self.auc:.3f}"),
            ("effective human rows", number(self.effective_sample_size, ".1f")),
            ("coverage", f"{self.coverage:.1%}"),
        ]
        why = "the samples are too far apart for their sizes" if self.saturated else ""
        if self.model_fits is False:
            why = "; ".join(filter(None, [why, "the log ratio is not linear in the features"]))
        note = f"a lower bound: {why}" if self.bound else ""
        return html_table("Distance from human latents", ("", ""), rows, note)


def estimate_kl(
    policy: Latents,
    human: Latents,
    *,
    latents: Sequence[int] = (),
    estimator: str | Estimator = "logistic",
    level: float = 0.95,
    seed: int = 0,
) -> KLEstimate:
    """Estimates `KL(policy || human) = E_policy[log p_policy(z) - log p_human(z)]` from two samples.

    A classifier on `[1(z > 0), z]`, standardised on the human rows, estimates the log ratio. The log ratio of
    every row comes from a fit that never saw it (eight groups), and the interval comes from deleting each
    group in turn. The default estimator is right when the log ratio is linear in those features, as it is for
    Gaussians that differ in their mean and for sparse exponential latents. `check_linear` tests that; where
    it fails, the value is a lower bound and `model_fits` is False.

    Args:
        policy: [P, D] array, or a batch of sparse latents, or scored answers.
        human: [H, D] likewise; P and H may differ.
        latents: the latents compared when sparse latents are given. By default those that fire in at
            least 10 rows and not in all, at most 256: those whose firing rate is nearest to one half.
        estimator: `logistic`, `mlp`, `ulsif`, `rulsif`, `mahalanobis`, or anything with their `fit`.
        level: of the interval, between 0 and 1.
        seed: of the groups.

    Raises:
        DataError: fewer than 8 distinct rows per side, different widths, NaN, or no latent that varies.
        ModelError: scores of two heads, or latents of two autoencoders.
        ConfigError: an unknown estimator, a level outside (0, 1), or a latent that does not exist.
        MissingExtraError: the estimator needs a package that is not installed.
    """
    if not 0 < level < 1:
        raise ConfigError(f"the level of the interval is {level:g}, it must be between 0 and 1")
    chosen, policy_z, human_z = _matched(policy, human, latents)
    # a buffer for its checks and its standardisation; no head is asked about, so the fingerprint is empty
    buffer = HumanBuffer(chosen, human_z, "")
    policy_rows, human_rows = (SampleRows(buffer.features(z), z) for z in (policy_z, human_z))
    chosen_estimator = _estimator(estimator)
    fit = cross_fit(policy_rows, human_rows, chosen_estimator, groups=GROUPS, seed=seed)
    fits = _fits(chosen_estimator, policy_rows, human_rows, seed)
    estimate = replace(_estimate(fit, buffer, policy_z, level), model_fits=fits)
    if estimate.model_fits is False:
        return _at_least(estimate, policy_rows, human_rows, seed)
    if not estimate.saturated:
        return estimate
    # every log ratio gives a bound; where hardly a row is in doubt, a strong ridge gives a better one
    log_ratios = held_out(policy_rows, human_rows, Logistic(l2=_FAR_APART_L2), groups=GROUPS, seed=seed)
    least = estimate.low if estimate.accuracy <= SEPARATED_ACCURACY else 0.0
    return _with_bound(estimate, log_ratios, least)


def _estimate(fit: CrossFit, buffer: HumanBuffer, policy_z: NDArray[np.float32], level: float) -> KLEstimate:
    from scipy.stats import t

    # Student's t, since an error from eight deleted groups is itself uncertain
    half = float(t.ppf(0.5 + 0.5 * level, fit.freedom)) * fit.error
    accuracy = balanced_accuracy(fit.policy, fit.human)
    rows = len(fit.policy), len(fit.human)
    fired = (policy_z > 0).any(axis=0)
    return KLEstimate(
        value=fit.mean,
        low=fit.mean - half,
        high=fit.mean + half,
        accuracy=accuracy,
        auc=area_under_curve(fit.policy, fit.human),
        saturated=is_saturated(fit.mean, accuracy, fit.fitted_accuracy, rows),
        log_ratio=fit.policy,
        human_log_ratio=fit.human,
        slope=calibration_slope(fit.policy, fit.human),
        effective_sample_size=effective_sample_size(fit.human),
        coverage=float((buffer.rates[fired] > 0).mean()) if fired.any() else 1.0,
        latents=buffer.latents,
        level=level,
    )


def _with_bound(estimate: KLEstimate, log_ratios: HeldOut, least: float) -> KLEstimate:
    """Replaces a saturated estimate by a lower bound.

    The lower end of its interval (`least`) is such a bound too, unless hardly a row is in doubt: then the
    regularisation makes the ratios, they are alike whichever group is left out, and the interval is short.
    """
    own = lower_bound(estimate.log_ratio, estimate.human_log_ratio)
    value = max(own, lower_bound(log_ratios.policy, log_ratios.human), least)
    return replace(estimate, value=value, low=min(estimate.low, value), high=math.inf)


def _fits(estimator: Estimator, policy: SampleRows, human: SampleRows, seed: int) -> bool | None:
    """Whether the log ratio has the form that the estimator assumes; see `KLEstimate.model_fits`."""
    if not isinstance(estimator, Logistic | Mahalanobis):
        return None
    sides = [Rows.distinct(side.latents, side.features) for side in (policy, human)]
    fits = check_linear(*sides, seed=seed).fits
    # the closed form needs more than a linear log ratio: Gaussians of one covariance
    return fits if isinstance(estimator, Logistic) or fits is False else None


def _at_least(estimate: KLEstimate, policy: SampleRows, human: SampleRows, seed: int) -> KLEstimate:
    """Replaces an estimate whose model does not fit by a bound from its log ratios or from wider ones."""
    wider = wider_held_out(policy, human, groups=GROUPS, seed=seed)
    own = sure_bound(estimate.log_ratio, estimate.human_log_ratio)
    value = max(own, sure_bound(wider.policy, wider.human))
    return replace(estimate, value=value, low=value, high=math.inf, wider=float(wider.policy.mean()))


def _estimator(given: str | Estimator) -> Estimator:
    if not isinstance(given, str):
        return given
    if given not in ESTIMATORS:
        raise ConfigError(f"no estimator is called {given!r}", hint=f"they are {', '.join(ESTIMATORS)}")
    return ESTIMATORS[given]()


def _matched(
    policy: Latents, human: Latents, latents: Sequence[int]
) -> tuple[tuple[int, ...], NDArray[np.float32], NDArray[np.float32]]:
    """The latents compared and their values in both samples."""
    if isinstance(policy, Scored) and isinstance(human, Scored) and policy.fingerprint != human.fingerprint:
        raise ModelError(
            f"the policy was scored with head {policy.fingerprint}, the humans with {human.fingerprint}",
            hint="score both with the same reward model",
        )
    if isinstance(policy, Scored) and isinstance(human, Scored):
        models = {side.model_fingerprint for side in (policy, human)}
        if None not in models and len(models) > 1:
            raise ModelError(
                f"the policy was scored with model {policy.model_fingerprint}, the humans with "
                f"{human.model_fingerprint}: the heads are equal, trunk or autoencoder are not",
                hint="score both with the same reward model",
            )
    sides = [side.latents if isinstance(side, Scored) else side for side in (policy, human)]
    if all(isinstance(side, SparseLatents) for side in sides):
        chosen, values = _sparse([side for side in sides if isinstance(side, SparseLatents)], latents)
    elif any(isinstance(side, SparseLatents) for side in sides):
        raise DataError("one sample is an array and the other sparse latents", hint="give two of a kind")
    else:
        chosen, values = _dense([np.asarray(side) for side in sides], latents)
    if len(values[0]) < SMALLEST_BUFFER:
        raise DataError(f"the policy has {len(values[0])} rows, at least {SMALLEST_BUFFER} are needed")
    check_finite(values[0], "the policy")
    return chosen, values[0], values[1]


def _dense(
    sides: list[NDArray[Any]], latents: Sequence[int]
) -> tuple[tuple[int, ...], list[NDArray[np.float32]]]:
    shapes = [side.shape for side in sides]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1:] != shapes[1][1:]:
        raise DataError(
            f"the samples have shapes {shapes[0]} and {shapes[1]}, both must be [rows, latents] of one width"
        )
    chosen = tuple(latents) or tuple(range(shapes[0][1]))
    check_known(chosen, shapes[0][1])
    return chosen, [side[:, list(chosen)].astype(np.float32) for side in sides]


def _sparse(
    sides: list[SparseLatents], latents: Sequence[int]
) -> tuple[tuple[int, ...], list[NDArray[np.float32]]]:
    if sides[0].size != sides[1].size:
        raise ModelError(f"the samples come from autoencoders of {sides[0].size} and {sides[1].size} latents")
    chosen = tuple(latents) or _informative(sides)
    check_known(chosen, sides[0].size)
    return chosen, [side.columns(chosen) for side in sides]


def _informative(sides: list[SparseLatents]) -> tuple[int, ...]:
    """The latents whose firing varies most, ascending ids.

    The choice does not look at which sample a row belongs to, so it cannot bias the estimate.
    """
    size, rows = sides[0].size, sum(len(side) for side in sides)
    fires = sum(np.bincount(side.indices[side.values > 0], minlength=size) for side in sides)
    says = np.minimum(fires, rows - fires)
    best = np.argsort(-says, kind="stable")[:_MOST_LATENTS]
    chosen = tuple(sorted(int(latent) for latent in best if says[latent] >= _LEAST_FIRINGS))
    if not chosen:
        raise DataError(f"no latent fires in at least {_LEAST_FIRINGS} of the {rows} rows and not in all")
    return chosen
