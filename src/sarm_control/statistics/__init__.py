"""Intervals and tests of arrays.

In: numbers by prompt. Out: intervals, p-values, corrections for many tests, and numbers as text.
This room does not import anything about reward models.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.statistics.clustered_auroc import (
        Placed,
        difference_over_folds,
        interval_over_folds,
        placed,
    )
    from sarm_control.statistics.formatting import (
        MINUS,
        bracket,
        counted,
        decimals,
        fixed,
        for_terminal,
        interval,
        missing,
        number,
        percent,
        short,
        with_ends,
    )
    from sarm_control.statistics.intervals import (
        Interval,
        clustered_mean,
        column_moments,
        interval_ends,
        leaves_out_zero,
        mean_interval,
        mean_intervals,
        skewness_of_mean,
        too_few,
    )
    from sarm_control.statistics.logistic import Classifier, fit_logistic
    from sarm_control.statistics.matched_sets import (
        SETS,
        AmongSets,
        MatchedSets,
        among_matched_sets,
        matched_random_sets,
    )
    from sarm_control.statistics.mcnemar import Flips, flips
    from sarm_control.statistics.mixed_density import MixedRows
    from sarm_control.statistics.multiplicity import benjamini_hochberg, benjamini_yekutieli
    from sarm_control.statistics.ratios import ratio_interval, size_ratio
    from sarm_control.statistics.shares import (
        change_of_shares,
        mean_of_shares,
        share_interval,
        share_intervals,
    )
    from sarm_control.statistics.sign_flips import (
        ENOUGH_REACHED,
        EXACT_UP_TO,
        MAX_T_DRAWS,
        SLACK,
        max_t_test,
        sign_flip_test,
    )
    from sarm_control.statistics.stratified import mean_of_means

_HOME_OF = {
    "AmongSets": "matched_sets",
    "Classifier": "logistic",
    "ENOUGH_REACHED": "sign_flips",
    "EXACT_UP_TO": "sign_flips",
    "Flips": "mcnemar",
    "Interval": "intervals",
    "MAX_T_DRAWS": "sign_flips",
    "MINUS": "formatting",
    "MatchedSets": "matched_sets",
    "MixedRows": "mixed_density",
    "Placed": "clustered_auroc",
    "SETS": "matched_sets",
    "SLACK": "sign_flips",
    "among_matched_sets": "matched_sets",
    "benjamini_hochberg": "multiplicity",
    "benjamini_yekutieli": "multiplicity",
    "bracket": "formatting",
    "change_of_shares": "shares",
    "clustered_mean": "intervals",
    "column_moments": "intervals",
    "counted": "formatting",
    "decimals": "formatting",
    "difference_over_folds": "clustered_auroc",
    "fit_logistic": "logistic",
    "fixed": "formatting",
    "for_terminal": "formatting",
    "flips": "mcnemar",
    "interval": "formatting",
    "interval_ends": "intervals",
    "interval_over_folds": "clustered_auroc",
    "leaves_out_zero": "intervals",
    "matched_random_sets": "matched_sets",
    "max_t_test": "sign_flips",
    "mean_interval": "intervals",
    "mean_intervals": "intervals",
    "mean_of_means": "stratified",
    "mean_of_shares": "shares",
    "missing": "formatting",
    "number": "formatting",
    "percent": "formatting",
    "placed": "clustered_auroc",
    "ratio_interval": "ratios",
    "share_interval": "shares",
    "share_intervals": "shares",
    "short": "formatting",
    "sign_flip_test": "sign_flips",
    "skewness_of_mean": "intervals",
    "too_few": "intervals",
    "size_ratio": "ratios",
    "with_ends": "formatting",
}

__all__ = [
    "ENOUGH_REACHED",
    "EXACT_UP_TO",
    "MAX_T_DRAWS",
    "MINUS",
    "SETS",
    "SLACK",
    "AmongSets",
    "Classifier",
    "Flips",
    "Interval",
    "MatchedSets",
    "MixedRows",
    "Placed",
    "among_matched_sets",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bracket",
    "change_of_shares",
    "clustered_mean",
    "column_moments",
    "counted",
    "decimals",
    "difference_over_folds",
    "fit_logistic",
    "fixed",
    "flips",
    "for_terminal",
    "interval",
    "interval_ends",
    "interval_over_folds",
    "leaves_out_zero",
    "matched_random_sets",
    "max_t_test",
    "mean_interval",
    "mean_intervals",
    "mean_of_means",
    "mean_of_shares",
    "missing",
    "number",
    "percent",
    "placed",
    "ratio_interval",
    "share_interval",
    "share_intervals",
    "short",
    "sign_flip_test",
    "size_ratio",
    "skewness_of_mean",
    "too_few",
    "with_ends",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
