"""Trained policies compared with their base.

In: run folders. Out: one report, as JSON and as an HTML page: what changed, latent by latent.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.comparison.compare import (
        ComparisonResult,
        Gold,
        check_same_base,
        compare_runs,
        in_order,
        run_names,
        sampling_of,
        trained_on,
        unique_prompts,
    )
    from sarm_control.comparison.first_screen import arm_titles
    from sarm_control.comparison.generation import Sampling, answer_prompts, kl_to_base
    from sarm_control.comparison.headline import TOO_FEW, arm_title, verdict
    from sarm_control.comparison.ledger_table import write_ledger
    from sarm_control.comparison.report_data import Comparison
    from sarm_control.comparison.report_figures import CURVES
    from sarm_control.comparison.report_page import comparison_page, comparison_sections, write_report
    from sarm_control.comparison.trained_run import TrainedRun, open_run

_HOME_OF = {
    "CURVES": "report_figures",
    "Comparison": "report_data",
    "ComparisonResult": "compare",
    "Gold": "compare",
    "Sampling": "generation",
    "TOO_FEW": "headline",
    "TrainedRun": "trained_run",
    "answer_prompts": "generation",
    "arm_title": "headline",
    "arm_titles": "first_screen",
    "check_same_base": "compare",
    "compare_runs": "compare",
    "in_order": "compare",
    "kl_to_base": "generation",
    "run_names": "compare",
    "open_run": "trained_run",
    "sampling_of": "compare",
    "trained_on": "compare",
    "unique_prompts": "compare",
    "verdict": "headline",
    "write_ledger": "ledger_table",
    "comparison_page": "report_page",
    "comparison_sections": "report_page",
    "write_report": "report_page",
}

_RENAMED = {
    "Compared": "ComparisonResult",
}
"""Former names, for one version."""

__all__ = [
    "CURVES",
    "TOO_FEW",
    "Comparison",
    "ComparisonResult",
    "Gold",
    "Sampling",
    "TrainedRun",
    "answer_prompts",
    "arm_title",
    "arm_titles",
    "check_same_base",
    "compare_runs",
    "comparison_page",
    "comparison_sections",
    "in_order",
    "kl_to_base",
    "open_run",
    "run_names",
    "sampling_of",
    "trained_on",
    "unique_prompts",
    "verdict",
    "write_ledger",
    "write_report",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
