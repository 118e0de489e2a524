"""The log density ratio by logistic regression without its first-order bias.

By hand, because scikit-learn's logistic regression has no Jeffreys term; without the term, tests hold the two
equal.

Shapes: `P` policy rows, `H` human rows, `F` features. Pure functions; nothing here is random.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEWTON_STEPS = 40
# separable samples leave the intercept, which has no ridge of its own, without curvature
_JITTER = 1e-9


class LogRatio(NamedTuple):
    """`log p(x) / q(x) = weight . x + intercept`, with the sizes of the samples already corrected for."""

    weight: Array
    intercept: float

    def at(self, features: Array) -> Array:
        """[N] log ratio in nats of features [N, F]."""
        return np.asarray(features @ self.weight + self.intercept)


class _Point(NamedTuple):
    loss: float
    gradient: Array
    step: Array


class _Curvature(NamedTuple):
    """Of each row the signed logit, the probability of the wrong side, the scaled features; the Hessian."""

    margin: Array
    wrong: Array
    scaled: Array
    hessian: Array


class _Problem(NamedTuple):
    design: Array
    sign: Array
    counts: Array
    offset: float
    ridge: Array
    jeffreys: bool

    def at(self, theta: Array) -> _Point:
        """Loss, gradient and Newton step; the step uses the curvature without the Jeffreys term.

        That curvature is positive definite, and with many rows the term hardly changes it.
        """
        margin, wrong, scaled, hessian = self.curvature(theta)
        loss = float((self.counts * np.logaddexp(0.0, -margin)).sum() + 0.5 * (self.ridge * theta**2).sum())
        pull = self.counts * self.sign * wrong
        # the inverse itself and not one solve: the leverages of all rows need it as well as the step
        inverse = np.linalg.inv(hessian)
        if self.jeffreys:
            # half the log determinant is the sum of the logarithms of the Cholesky factor's diagonal; its
            # derivative adds half the leverage of each row to both sides (Firth, 1993)
            loss -= float(np.log(np.diag(np.linalg.cholesky(hessian))).sum())
            leverage = ((scaled @ inverse) * scaled).sum(axis=1)
            pull = pull + leverage * self.sign * (wrong - 0.5)
        gradient = -self.design.T @ pull + self.ridge * theta
        return _Point(loss, gradient, inverse @ gradient)

    def curvature(self, theta: Array) -> _Curvature:
        """The terms of the second-order expansion of the logistic loss around theta."""
        margin = self.sign * (self.design @ theta + self.offset)
        # tanh does not overflow where exp would
        wrong = 0.5 * (1.0 - np.tanh(0.5 * margin))
        scaled = self.design * np.sqrt(self.counts * wrong * (1.0 - wrong))[:, None]
        hessian = scaled.T @ scaled
        hessian.flat[:: len(theta) + 1] += self.ridge + _JITTER
        return _Curvature(margin, wrong, scaled, hessian)


def fit_log_ratio(
    policy: Array,
    human: Array,
    *,
    l2: float,
    jeffreys: bool = False,
    counts: Array | None = None,
    start: LogRatio | None = None,
    tolerance: float = 1e-10,
) -> LogRatio:
    """Fits `log p_policy / p_human` (Sugiyama, Suzuki and Kanamori, 2012, chapter 4).

    Minimises the logistic loss summed over all rows plus `l2 / 2 |weight|^2`. The classifier's logit
    is the log ratio plus `log(P / H)`; that constant is held fixed during the fit, so samples of
    unequal size need no correction afterwards.

    The maximum-likelihood weights are too large by about `F / rows`, and so is every divergence.
    `jeffreys` subtracts half the log determinant of the information from the loss. This removes the
    bias to first order and keeps the weights finite on separable samples (Firth, 1993, "Bias reduction of
    maximum likelihood estimates").

    The fit takes at most 40 damped Newton steps. The result does not depend on the order of the rows, and
    depends on `start` only within `tolerance`.

    Args:
        policy: [P, F] standardised features.
        human: [H, F] the same features of the human rows.
        l2: > 0, the strength of the regularisation: the inverse variance of a Gaussian prior.
        jeffreys: remove the first-order bias.
        counts: [P] weight of each policy row, above 0; all 1 by default.
        start: where to begin; saves time when the samples changed little.
        tolerance: the steps end when the next would lower the loss by half of this; its root is the
            remaining distance in standard errors of the weights.
    """
    problem = _problem(policy, human, np.ones(len(policy)) if counts is None else counts, l2, jeffreys)
    width = problem.design.shape[1]
    theta = np.zeros(width) if start is None else np.append(start.weight, start.intercept)
    theta = _minimise(problem, theta, tolerance)
    return LogRatio(theta[:-1], float(theta[-1]))


def mean_variance(
    ratio: LogRatio,
    policy: Array,
    human: Array,
    *,
    l2: float,
    counts: Array | None = None,
    sandwich: bool = True,
) -> float:
    """The variance of the mean log ratio over the policy rows that comes from the fitted parameters, nats^2.

    It does not include the sampling of the rows over which the mean is taken.

    Args:
        ratio: the fit on these rows.
        policy: [P, F] the rows of the fit.
        human: [H, F] the rows of the fit.
        l2: as in the fit.
        counts: [P] as in the fit.
        sandwich: use the observed scatter of the rows (the sandwich estimator); otherwise the scatter that
            the model expects, which is steadier where few rows decide.
    """
    # delta method: the gradient of the mean log ratio is the mean design row
    held = np.ones(len(policy)) if counts is None else counts
    problem = _problem(policy, human, held, l2, False)
    around = problem.curvature(np.append(ratio.weight, ratio.intercept))
    mean = np.average(problem.design[: len(policy)], axis=0, weights=held)
    direction = np.linalg.solve(around.hessian, mean)
    if not sandwich:
        return float(direction @ mean)
    # H^-1 (sum of scores' outer products) H^-1; a row's score is sign * wrong * x, and the sign squares away
    return float(((problem.counts * around.wrong * (problem.design @ direction)) ** 2).sum())


@dataclass(frozen=True)
class Logistic:
    """The default estimator: bias-reduced logistic regression.

    Args:
        l2: > 0, in addition to the Jeffreys term; a small one only fixes directions without data.
        jeffreys: see `fit_log_ratio`; without it the KL divergence is overstated.
        tolerance: see `fit_log_ratio`.
    """

    l2: float = 1e-3
    jeffreys: bool = True
    tolerance: float = 1e-4

    def fit(
        self, policy: Array, human: Array, *, counts: Array | None = None, start: LogRatio | None = None
    ) -> LogRatio:
        """See `fit_log_ratio`."""
        return fit_log_ratio(
            policy,
            human,
            l2=self.l2,
            jeffreys=self.jeffreys,
            counts=counts,
            start=start,
            tolerance=self.tolerance,
        )


def _problem(policy: Array, human: Array, counts: Array, l2: float, jeffreys: bool) -> _Problem:
    width = policy.shape[1] + 1
    rows = np.concatenate([policy, human])
    return _Problem(
        design=np.concatenate([rows, np.ones((len(rows), 1))], axis=1),
        sign=np.concatenate([np.ones(len(policy)), -np.ones(len(human))]),
        counts=np.concatenate([counts, np.ones(len(human))]),
        # the classifier's logit is the log ratio plus log(P / H); without that, theta is the log ratio
        offset=float(np.log(counts.sum() / len(human))),
        # none on the intercept, where it would pull every log ratio towards 0
        ridge=np.append(np.full(width - 1, l2), 0.0),
        jeffreys=jeffreys,
    )


def _minimise(problem: _Problem, theta: Array, tolerance: float) -> Array:
    here = problem.at(theta)
    for _ in range(_NEWTON_STEPS):
        # the squared Newton decrement, twice the fall of the loss that a whole step promises
        if here.gradient @ here.step <= tolerance:
            # Newton's method converges quadratically: one more whole step leaves next to nothing
            return theta - here.step
        size = 1.0
        there = problem.at(theta - here.step)
        # a whole step may overshoot far from the optimum: its curvature leaves out the Jeffreys term; the
        # halvings end, at the latest where they are lost in rounding and the loss is the same number
        while there.loss > here.loss:
            size *= 0.5
            there = problem.at(theta - size * here.step)
        theta, here = theta - size * here.step, there
    return theta
