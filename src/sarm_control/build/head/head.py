"""A Bradley-Terry head on features of answers: one weight per prompt, no bias.

The loss is `sum_p (1/n_p) sum_{c,r in p} log(1 + exp(-w.(f_c - f_r)))` over P prompts plus
`l2/2 |s w|^2`, where `n_p` counts a prompt's comparisons and `s` is the root mean square norm of
the differences `f_c - f_r`, so that one `l2` means the same for any scale and origin of features.
By hand, because scikit-learn's logistic regression wants two classes: each difference would be given
twice, with both signs. It also stops at looser gradients and takes no start.

Shapes: `N` answers, `F` features, `C` comparisons, `P` prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.build.head.comparisons import Comparisons
from sarm_control.errors import TrainingError
from sarm_control.seeds import numpy_generator

Features = Any
"""[N, F]: a float array, or a `scipy.sparse.csr_array`."""

Weight = NDArray[np.float64]

L2_GRID: tuple[float, ...] = tuple(float(10.0**exponent) for exponent in np.arange(-7.0, 0.01, 0.5))

_MOST_ITERATIONS = 5000
# Up to this many features a Newton step, cubic in them, is cheaper than the L-BFGS steps it replaces.
_NEWTON_FEATURES = 256
_NEWTON_STEPS = 50
_GRADIENT = 1e-9
_PATIENCE = 2


@dataclass(frozen=True)
class Regularisation:
    """A strength chosen on preferences it was not fitted on: cross-validation, or a validation set.

    Args:
        l2: the strength with the lowest mean held-out loss.
        grid: the strengths tried, strongest first; the search ends two past the minimum.
        losses: mean held-out loss of each, nats per prompt; `log 2` is chance.
    """

    l2: float
    grid: tuple[float, ...]
    losses: tuple[float, ...]


def fit_head(features: Features, comparisons: Comparisons, l2: float, start: Weight | None = None) -> Weight:
    """The weights [F] float64 that minimise the regularised loss, in units of the raw features.

    Args:
        features: [N, F] of the answers that `comparisons` refers to.
        comparisons: which answers were preferred to which.
        l2: strength of the penalty, > 0 (it makes the minimum unique).
        start: [F] weights to start from; the minimum does not depend on them.

    Raises:
        TrainingError: no comparison is left, or the minimiser did not converge.
    """
    if not len(comparisons):
        raise TrainingError("no comparison to fit a head on", hint="give rows with chosen and rejected")
    share = comparisons.prompt_shares()
    difference = features[comparisons.chosen] - features[comparisons.rejected]
    # features of any scale then need the same strengths of regularisation. The scale is that of differences:
    # the norm of states is mostly their common mean, which cancels.
    scale = root_mean_square_norm(difference, share)
    difference = difference / scale
    begin = np.zeros(difference.shape[1]) if start is None else start * scale
    return _minimise(difference, share, l2, begin) / scale


def choose_l2(
    features: Features,
    comparisons: Comparisons,
    *,
    grid: Sequence[float] = L2_GRID,
    folds: int = 5,
    seed: int = 0,
) -> Regularisation:
    """Cross-validates the strength, whole prompts at a time.

    Args:
        features: [N, F].
        comparisons: the comparisons to fit and to validate on.
        grid: strengths to try.
        folds: number of parts that the prompts are split into; at least 2 prompts are needed.
        seed: decides which prompt is in which part.

    Raises:
        TrainingError: fewer than two prompts.
    """
    fold_of = assign_folds(comparisons, folds, seed)
    parts = [
        (comparisons.take(fold_of != fold), comparisons.take(fold_of == fold))
        for fold in range(int(fold_of.max()) + 1)
    ]
    weights: list[Weight | None] = [None] * len(parts)
    tried: list[tuple[float, float]] = []
    for l2 in sorted(grid, reverse=True):
        total = 0.0
        for number, (fitted, validated) in enumerate(parts):
            # each strength starts from the weights of the stronger one before, which are near
            weight = weights[number] = fit_head(features, fitted, l2, weights[number])
            total += preference_loss(features, validated, weight) * validated.prompts_count
        tried.append((total / comparisons.prompts_count, l2))
        # weaker strengths take longer and longer to fit, and past the minimum the loss only rises
        if len(tried) - 1 - tried.index(min(tried)) == _PATIENCE:
            break
    losses, strengths = zip(*tried, strict=True)
    return Regularisation(min(tried)[1], strengths, losses)


def choose_l2_on(
    features: Features,
    comparisons: Comparisons,
    validation: Features,
    validated: Comparisons,
    *,
    grid: Sequence[float] = L2_GRID,
) -> Regularisation:
    """The strength whose head, fitted on all of `comparisons`, does best on other preferences.

    Args:
        features: [N, F] to fit on.
        comparisons: the comparisons to fit.
        validation: [M, F] features of the validation answers.
        validated: the comparisons to choose by.
        grid: strengths to try; the search ends two past the minimum.
    """
    weight: Weight | None = None
    tried: list[tuple[float, float]] = []
    for l2 in sorted(grid, reverse=True):
        weight = fit_head(features, comparisons, l2, weight)
        tried.append((preference_loss(validation, validated, weight), l2))
        if len(tried) - 1 - tried.index(min(tried)) == _PATIENCE:
            break
    losses, strengths = zip(*tried, strict=True)
    return Regularisation(min(tried)[1], strengths, losses)


def assign_folds(comparisons: Comparisons, folds: int, seed: int) -> NDArray[np.int64]:
    """[C]: the part each comparison belongs to; a prompt's comparisons stay together.

    Raises:
        TrainingError: fewer than two prompts.
    """
    prompts = np.unique(comparisons.prompt)
    if len(prompts) < 2:
        raise TrainingError(
            f"{len(prompts)} prompt with a comparison: at least 2 are needed to choose the regularisation",
            hint="add preference rows",
        )
    fold_of = numpy_generator(seed, "head folds").permutation(len(prompts)) % min(folds, len(prompts))
    return np.asarray(fold_of[np.searchsorted(prompts, comparisons.prompt)], dtype=np.int64)


def preference_loss(features: Features, comparisons: Comparisons, weight: Weight) -> float:
    """Mean over prompts of the loss without its penalty, in nats; `log 2` is chance."""
    scores = np.asarray(features @ weight)
    margin = scores[comparisons.chosen] - scores[comparisons.rejected]
    return float(comparisons.prompt_shares() @ np.logaddexp(0.0, -margin))


def root_mean_square_norm(rows: Features, share: NDArray[np.float64]) -> float:
    """Weighted root mean square norm of the rows [C, F], 1 when they are all zero; `share` [C] sums to 1."""
    squares = rows.multiply(rows) if hasattr(rows, "multiply") else np.square(rows)
    return float(np.sqrt(share @ np.asarray(squares.sum(axis=1)).ravel())) or 1.0


def _minimise(difference: Features, share: NDArray[np.float64], l2: float, start: Weight) -> Weight:
    """Newton's method while the Hessian is small, else L-BFGS."""
    if difference.shape[1] <= _NEWTON_FEATURES:
        found = _newton(difference, share, l2, start)
        if found is not None:
            return found
    return _quasi_newton(difference, share, l2, start)


def _newton(difference: Features, share: NDArray[np.float64], l2: float, start: Weight) -> Weight | None:
    """The minimum by Newton's method; None where rounding stops the descent before the gradient is small."""
    from scipy.special import expit

    dense = difference.toarray() if hasattr(difference, "toarray") else np.asarray(difference)

    def loss(weight: Weight) -> float:
        return float(share @ np.logaddexp(0.0, -(dense @ weight)) + 0.5 * l2 * weight @ weight)

    weight, now = start, loss(start)
    for _ in range(_NEWTON_STEPS):
        wrong = expit(-(dense @ weight))
        gradient = l2 * weight - dense.T @ (share * wrong)
        if np.abs(gradient).max() <= _GRADIENT:
            return np.asarray(weight, dtype=np.float64)
        curvature = (dense * (share * wrong * (1.0 - wrong))[:, None]).T @ dense
        # the penalty keeps the matrix positive definite, so the step exists
        curvature[np.diag_indices_from(curvature)] += l2
        step = np.linalg.solve(curvature, gradient)
        # a full Newton step can overshoot far from the minimum: it is halved until the loss does not rise
        lengths = (0.5**halving for halving in range(30))
        chosen = next((length for length in lengths if loss(weight - length * step) <= now), None)
        if chosen is None:
            return None
        weight = weight - chosen * step
        now = loss(weight)
    return None


def _quasi_newton(difference: Features, share: NDArray[np.float64], l2: float, start: Weight) -> Weight:
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss_and_gradient(weight: Any) -> tuple[float, Weight]:
        margin = np.asarray(difference @ weight)
        loss = float(share @ np.logaddexp(0.0, -margin)) + 0.5 * l2 * float(weight @ weight)
        return loss, l2 * weight - np.asarray(difference.T @ (share * expit(-margin)))

    options: Any = {"maxiter": _MOST_ITERATIONS, "maxfun": 4 * _MOST_ITERATIONS, "ftol": 1e-13, "gtol": 1e-8}
    result = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    # scipy's `success` is not asked: a stop because no step lowers the loss is as converged as floats allow
    if result.nit >= _MOST_ITERATIONS:
        raise TrainingError(f"the preference head did not converge: {result.message}")
    return np.asarray(result.x, dtype=np.float64)
