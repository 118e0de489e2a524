"""Reports: everything that is known about runs, discoveries and audits, the verdict first.

In: folders and files that other commands wrote. Out: a `Page` and the same content as JSON.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.report.names import latent_names
    from sarm_control.report.of_answers.coverage import coverage_page
    from sarm_control.report.of_answers.probes import probe_page
    from sarm_control.report.of_answers.rerankings import reranking_page
    from sarm_control.report.of_audits import audit_page
    from sarm_control.report.of_discoveries import discovery_page
    from sarm_control.report.of_evaluations import evaluation_page
    from sarm_control.report.run_report import Report, make_report
    from sarm_control.report.sources import Sources, read_sources

_HOME_OF = {
    "Report": "run_report",
    "Sources": "sources",
    "audit_page": "of_audits",
    "coverage_page": "of_answers.coverage",
    "discovery_page": "of_discoveries",
    "evaluation_page": "of_evaluations",
    "latent_names": "names",
    "make_report": "run_report",
    "probe_page": "of_answers.probes",
    "read_sources": "sources",
    "reranking_page": "of_answers.rerankings",
}

__all__ = [
    "Report",
    "Sources",
    "audit_page",
    "coverage_page",
    "discovery_page",
    "evaluation_page",
    "latent_names",
    "make_report",
    "probe_page",
    "read_sources",
    "reranking_page",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
