"""The explorer: latents, answers and exact edits in a browser.

In: a reward model, scored rows, a discovery, an audit, a run folder. Out: pages on this machine, or the same
pages as files, or the bench in a notebook. To serve or to draw in a notebook it needs the extra `explore`;
an export needs none.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.explorer.app import create_explorer
    from sarm_control.explorer.export import export_site
    from sarm_control.explorer.in_notebooks import open_bench
    from sarm_control.explorer.live_run import LiveRun
    from sarm_control.explorer.notes import Notes
    from sarm_control.explorer.site import Site
    from sarm_control.explorer.sources import (
        Found,
        LatentName,
        Sources,
        found_in,
        names_in,
        no_rows,
        planted_names,
        read_audit,
    )

_HOME_OF = {
    "Found": "sources",
    "LatentName": "sources",
    "LiveRun": "live_run",
    "Notes": "notes",
    "Site": "site",
    "Sources": "sources",
    "create_explorer": "app",
    "export_site": "export",
    "found_in": "sources",
    "names_in": "sources",
    "no_rows": "sources",
    "open_bench": "in_notebooks",
    "planted_names": "sources",
    "read_audit": "sources",
}

__all__ = [
    "Found",
    "LatentName",
    "LiveRun",
    "Notes",
    "Site",
    "Sources",
    "create_explorer",
    "export_site",
    "found_in",
    "names_in",
    "no_rows",
    "open_bench",
    "planted_names",
    "read_audit",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
