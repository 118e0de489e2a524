"""Least-squares density ratios with Gaussian kernels: uLSIF and RuLSIF, from the package densratio."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sarm_control.control.density_ratio.logistic import Array
from sarm_control.errors import MissingExtraError
from sarm_control.seeds import derive_seed

_LEAST_RATIO = 1e-3


@dataclass(frozen=True)
class KernelRatio:
    """A relative ratio `p / (alpha p + (1 - alpha) q)`, converted to `log p / q`."""

    fitted: Any
    alpha: float

    def at(self, features: Array) -> Array:
        """[N] log ratio in nats; ratios below 0.001 count as 0.001: kernels cannot resolve smaller ones."""
        relative = np.asarray(self.fitted.compute_density_ratio(features), np.float64).ravel()
        # p / q = (1 - alpha) r / (1 - alpha r). A true r is below 1 / alpha, a fitted one may not be.
        ratio = relative * (1 - self.alpha) / np.maximum(1 - self.alpha * relative, _LEAST_RATIO)
        return np.log(np.maximum(ratio, _LEAST_RATIO))


@dataclass(frozen=True)
class LeastSquares:
    """RuLSIF (Yamada et al., 2013), or uLSIF (Kanamori et al., 2009) when alpha is 0.

    Kernel width and ridge are chosen by the package's leave-one-out search. The logarithm of a ratio
    fitted by least squares is poor where the ratio is small: use it to compare, not as a penalty.

    Args:
        alpha: 0 to below 1, the policy's share in the mixture of the denominator; it bounds the ratio.
        kernels: Gaussian kernels, centred on policy rows.
        seed: of the choice of centres.
    """

    alpha: float = 0.5
    kernels: int = 100
    seed: int = 0

    def fit(self, policy: Array, human: Array, *, start: KernelRatio | None = None) -> KernelRatio:
        """The ratio of policy [P, F] to human [H, F]; width and ridge are taken from `start` if given.

        Raises:
            MissingExtraError: the package densratio is not installed.
        """
        searched: dict[str, list[float]] = {}
        if start is not None:
            searched = {"sigma": [start.fitted.kernel_info.sigma], "lambda_": [start.fitted.lambda_]}
        try:
            from densratio import RuLSIF
        except ImportError as error:
            raise MissingExtraError(
                "least-squares density ratios need the package densratio",
                hint="pip install 'sarm-control[ratio]'",
            ) from error
        # numpy's global generator takes seeds of 32 bits
        with _global_seed(derive_seed(self.seed, "kernel centres") % 2**32):
            fitted = RuLSIF(
                policy, human, alpha=self.alpha, kernel_num=self.kernels, verbose=False, **searched
            )
        return KernelRatio(fitted, self.alpha)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, from which the package draws its centres, and restores it."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
