"""How well a log ratio separates two samples, and which of its numbers can be trusted."""

import math

import numpy as np
from jaxtyping import Float

from sarm_control.control.density_ratio.logistic import Array, fit_log_ratio, mean_variance

SATURATED_ACCURACY = 0.97
"""Above this the samples are nearly separated and a KL estimate is a lower bound."""
SEPARATED_ACCURACY = 0.985
"""Above this on the rows of the fit, the regularisation determines the ratio, not the rows."""
MOST_NATS = 7.0
"""The largest trusted estimate: one classifier saturates at about 8 nats, however many rows it has."""

_SLOPE_L2 = 1e-3
_BOUND_LEVEL = 0.995
# the normal quantile of the same level
_BOUND_ERRORS = 2.576


def balanced_accuracy(policy: Float[Array, " P"], human: Float[Array, " H"]) -> float:
    """The share of rows that the sign of the log ratio classifies correctly; each sample counts half.

    0.5 is chance, 1 is perfect separation.
    """
    return float(0.5 * (policy > 0).mean() + 0.5 * (human <= 0).mean())


def area_under_curve(policy: Float[Array, " P"], human: Float[Array, " H"]) -> float:
    """The probability that a policy row has a larger log ratio than a human row; ties count half."""
    from sklearn.metrics import roc_auc_score

    is_policy = np.repeat([True, False], [len(policy), len(human)])
    # equal rows tie, whatever the order in which sums were rounded
    return float(roc_auc_score(is_policy, np.round(np.concatenate([policy, human]), 8)))


def is_saturated(value: float, accuracy: float, fitted_accuracy: float, rows: tuple[int, int]) -> bool:
    """Whether samples are too far apart for their sizes, so that a KL estimate is a lower bound.

    Args:
        value: the estimate, nats, or an end of its interval.
        accuracy: balanced, on rows no fit has seen.
        fitted_accuracy: balanced, on the rows of the fits.
        rows: of the policy and of the humans.
    """
    separated = accuracy > SATURATED_ACCURACY or fitted_accuracy > SEPARATED_ACCURACY
    return separated or value > believable_nats(*rows)


def believable_nats(policy: int, human: int) -> float:
    """The largest KL divergence samples of these sizes can show, in nats.

    A sample never shows a ratio above about its number of rows, so estimates within one nat of the
    logarithm of that number are not trusted, and none above 7 is.
    """
    return min(float(np.log(min(policy, human))) - 1.0, MOST_NATS)


def effective_sample_size(human: Float[Array, " H"]) -> float:
    """Kish's count of the human rows [H] when each is weighted by its density ratio `exp(log ratio)`.

    Near H where the policy looks like the humans; near 1 where a single human row does.
    """
    # the largest weight is 1, so that none overflows; the common factor cancels
    weight = np.exp(human - human.max())
    return float(weight.sum() ** 2 / (weight**2).sum())


def calibration_slope(
    policy: Float[Array, " P"], human: Float[Array, " H"], counts: Float[Array, " P"] | None = None
) -> float:
    """The factor, 0 to 1, with which held-out log ratios fit best: the inverse of a temperature.

    A log ratio fitted on few rows is right on average and noisy in each row. Shrunk by the slope it is the
    best guess for one row, but its mean is then too small.

    Args:
        policy: [P] held-out log ratios of policy rows.
        human: [H] of human rows.
        counts: [P] weight of each policy row.
    """
    spread = float(np.concatenate([policy, human]).std())
    if spread == 0.0:
        return 1.0
    # in units of the spread, so that the ridge means the same at every scale
    fitted = fit_log_ratio(policy[:, None] / spread, human[:, None] / spread, l2=_SLOPE_L2, counts=counts)
    return float(np.clip(fitted.weight[0] / spread, 0.0, 1.0))


def lower_bound(policy: Float[Array, " P"], human: Float[Array, " H"]) -> float:
    """A lower bound of a KL divergence, in nats, from held-out log ratios of samples that are far apart.

    It is the largest of 0 and two bounds, each at its 99.5 % lower confidence limit:

    - The mean over the policy of log ratios cut at the logarithm of the number of rows (a sample shows no
      larger ones), minus the logarithm of the mean of such ratios over the human rows, which for true ratios
      is at most 0 (Donsker and Varadhan, 1975).
    - The divergence between the two samples of log ratios, which is at most that of the latents they are
      computed from (data processing inequality). A logistic regression with two parameters on the log ratios
      estimates it, with its standard error, although the samples overlap in few rows.

    Args:
        policy: [P] held-out log ratios of policy rows; fewer than 2 show nothing.
        human: [H] of human rows.
    """
    if len(policy) < 2:
        return 0.0
    shown = _mean_of_cut(policy, human)
    spread = float(np.concatenate([policy, human]).std())
    if spread == 0.0:
        return max(shown, 0.0)
    rows, human_rows = policy[:, None] / spread, human[:, None] / spread
    fitted = fit_log_ratio(rows, human_rows, l2=_SLOPE_L2, jeffreys=True)
    # few rows of samples this far apart are in doubt, too few for their own scatter to be a guide
    variance = mean_variance(fitted, rows, human_rows, l2=_SLOPE_L2, sandwich=False)
    return max(shown, float(fitted.at(rows).mean() - _BOUND_ERRORS * math.sqrt(variance)), 0.0)


def sure_bound(policy: Float[Array, " P"], human: Float[Array, " H"]) -> float:
    """A lower bound of a KL divergence, in nats, from any held-out log ratios, right or wrong.

    It is the largest of 0 and the 99.5 % lower confidence limit of `mean_policy(l) - log mean_human(exp(l))`,
    with l cut at the logarithm of the number of rows. For any l, that expression is at most the divergence
    (Donsker and Varadhan, 1975). The limit includes the sampling errors of both means.

    Args:
        policy: [P] held-out log ratios of policy rows; fewer than 2 show nothing.
        human: [H] of human rows, at least 2.
    """
    if min(len(policy), len(human)) < 2:
        return 0.0
    most = math.log(min(len(policy), len(human)))
    cut, ratio = np.minimum(policy, most), np.exp(np.minimum(human, most))
    # the second term is the variance of the logarithm of a mean, by the delta method
    spread = cut.var(ddof=1) / len(cut) + ratio.var(ddof=1) / (len(ratio) * ratio.mean() ** 2)
    bound = cut.mean() - excess(np.minimum(human, most)) - _BOUND_ERRORS * math.sqrt(spread)
    return max(float(bound), 0.0)


def excess(human: Float[Array, " H"]) -> float:
    """`log mean(exp(l))` over human rows [H], which is 0 for a true log ratio; never below 0.

    A mean log ratio over the policy, minus this, is at most the divergence, whatever the log ratio is. Values
    below 0 are raised to 0, because they rest on few human rows.
    """
    return max(float(np.log(np.exp(human).mean())), 0.0)


def _mean_of_cut(policy: Float[Array, " P"], human: Float[Array, " H"]) -> float:
    from scipy.stats import t

    most = math.log(min(len(policy), len(human)))
    cut, excess = np.minimum(policy, most), math.log(np.exp(np.minimum(human, most)).mean())
    errors = float(t.ppf(_BOUND_LEVEL, len(cut) - 1))
    return float(cut.mean() - errors * cut.std(ddof=1) / math.sqrt(len(cut)) - max(excess, 0.0))
