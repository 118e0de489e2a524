"""Reports: everything that is known about runs, discoveries and audits, the verdict first.

In: folders and files that other commands wrote. Out: a `Page` and the same content as JSON.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.report.of_audits import audit_page
    from sarm_control.report.of_discoveries import discovery_page
    from sarm_control.report.of_evaluations import evaluation_page
    from sarm_control.report.run_report import Report, make_report
    from sarm_control.report.sources import Sources, read_sources

_HOME_OF = {
    "Report": "run_report",
    "Sources": "sources",
    "audit_page": "of_audits",
    "discovery_page": "of_discoveries",
    "evaluation_page": "of_evaluations",
    "make_report": "run_report",
    "read_sources": "sources",
}

__all__ = [
    "Report",
    "Sources",
    "audit_page",
    "discovery_page",
    "evaluation_page",
    "make_report",
    "read_sources",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
