"""The log density ratio of two samples of latents, and the KL divergence it gives.

Every estimator is fitted on two samples of standardised features and then gives
`log p_policy(x) / p_human(x)` of any row, in nats.
"""

from sarm_control.control.density_ratio.estimate import KLEstimate, estimate_kl
from sarm_control.control.density_ratio.estimators import ESTIMATORS, Estimator, Ratio
from sarm_control.control.density_ratio.logistic import Array, Logistic, LogRatio, fit_log_ratio
from sarm_control.control.density_ratio.mahalanobis import Mahalanobis
from sarm_control.control.density_ratio.mmd import mmd_test
from sarm_control.control.density_ratio.separation import area_under_curve, balanced_accuracy

__all__ = [
    "ESTIMATORS",
    "Array",
    "Estimator",
    "KLEstimate",
    "LogRatio",
    "Logistic",
    "Mahalanobis",
    "Ratio",
    "area_under_curve",
    "balanced_accuracy",
    "estimate_kl",
    "fit_log_ratio",
    "mmd_test",
]
