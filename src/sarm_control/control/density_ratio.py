"""The log density ratio of two samples, by L2-regularised logistic regression.

Shapes: `P` policy rows, `H` human rows, `F` features. Pure functions; nothing here is random.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_NEWTON_STEPS = 100
_HALVINGS = 40


class LogRatio(NamedTuple):
    """`log p(x) / q(x) = weight . x + intercept`, with the sizes of the samples already corrected for."""

    weight: Array
    intercept: float

    def at(self, features: Array) -> Array:
        """[N] log ratio in nats of features [N, F]."""
        return np.asarray(features @ self.weight + self.intercept)


class _Problem(NamedTuple):
    design: Array
    sign: Array
    offset: float
    ridge: Array

    def loss(self, theta: Array) -> float:
        margin = self.sign * (self.design @ theta + self.offset)
        return float(np.logaddexp(0.0, -margin).sum() + 0.5 * (self.ridge * theta**2).sum())

    def newton_step(self, theta: Array) -> Array:
        logit = self.design @ theta + self.offset
        wrong = 0.5 * (1.0 - np.tanh(0.5 * self.sign * logit))
        gradient = -self.design.T @ (self.sign * wrong) + self.ridge * theta
        curvature = wrong * (1.0 - wrong)
        hessian = (self.design.T * curvature) @ self.design + np.diag(self.ridge)
        # the intercept has no ridge of its own: separable samples leave it without curvature
        hessian[-1, -1] += 1e-9
        return np.linalg.solve(hessian, gradient)


def fit_log_ratio(policy: Array, human: Array, *, l2: float, start: LogRatio | None = None) -> LogRatio:
    """Fits `log p_policy / p_human` (Sugiyama, Suzuki and Kanamori, 2012, chapter 4).

    Minimises the logistic loss summed over all rows plus `l2 / 2 |weight|^2`. The classifier's logit
    is the log ratio plus `log(P / H)`; that constant is held fixed during the fit, so samples of
    unequal size need no correction afterwards. Damped Newton steps run to rounding error: the
    result depends on the rows alone, not on their order and not on `start`.

    Args:
        policy: [P, F] standardised features.
        human: [H, F] the same features of the human rows.
        l2: > 0, the strength of the regularisation, that of a Gaussian prior of variance `1 / l2`.
        start: where to begin; saves time when the samples changed little.
    """
    width = policy.shape[1] + 1
    rows = np.concatenate([policy, human])
    problem = _Problem(
        design=np.concatenate([rows, np.ones((len(rows), 1))], axis=1),
        sign=np.concatenate([np.ones(len(policy)), -np.ones(len(human))]),
        offset=float(np.log(len(policy) / len(human))),
        ridge=np.append(np.full(width - 1, l2), 0.0),
    )
    theta = np.zeros(width) if start is None else np.append(start.weight, start.intercept)
    theta = _minimise(problem, theta)
    return LogRatio(theta[:-1], float(theta[-1]))


def _minimise(problem: _Problem, theta: Array) -> Array:
    loss = problem.loss(theta)
    for _ in range(_NEWTON_STEPS):
        step = problem.newton_step(theta)
        size, scale = 1.0, max(1.0, float(np.abs(theta).max()))
        small = np.abs(step).max() <= 1e-6 * scale
        while not small and size > 2.0**-_HALVINGS and problem.loss(theta - size * step) > loss:
            size *= 0.5
        theta = theta - size * step
        loss = problem.loss(theta)
        # Newton converges quadratically: after a step this small what is left is rounding
        if small:
            break
    return theta


def balanced_accuracy(policy: Array, human: Array) -> float:
    """The share of rows told apart by the sign of their log ratio, each sample counting half.

    0.5 is chance, 1 is perfect separation.
    """
    return float(0.5 * (policy > 0).mean() + 0.5 * (human <= 0).mean())
