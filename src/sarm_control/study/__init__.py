"""Arms x seeds x worlds over one run file.

In: a study file. Out: one run folder for each cell, and `study.json` with intervals that the report reads. A
*cell* is one run: an arm (a way to train) with one seed in one world (a reward model and its data).
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.study.cells import Cell, CellState, cells_of, chosen_cells, first_to_probe
    from sarm_control.study.costs import StudyPlan, needs_probe, plan_study, plan_text
    from sarm_control.study.intervals import CrossedInterval, crossed_interval, over_worlds
    from sarm_control.study.runner import Finished, failed_rows, open_study, probe, run_study
    from sarm_control.study.study_config import StudyConfig, load_study
    from sarm_control.study.tables import study_tables, study_text

_HOME_OF = {
    "first_to_probe": "cells",
    "needs_probe": "costs",
    "failed_rows": "runner",
    "probe": "runner",
    "Cell": "cells",
    "CellState": "cells",
    "CrossedInterval": "intervals",
    "Finished": "runner",
    "StudyConfig": "study_config",
    "StudyPlan": "costs",
    "cells_of": "cells",
    "chosen_cells": "cells",
    "crossed_interval": "intervals",
    "load_study": "study_config",
    "open_study": "runner",
    "over_worlds": "intervals",
    "plan_study": "costs",
    "plan_text": "costs",
    "run_study": "runner",
    "study_tables": "tables",
    "study_text": "tables",
}

__all__ = [
    "Cell",
    "CellState",
    "CrossedInterval",
    "Finished",
    "StudyConfig",
    "StudyPlan",
    "cells_of",
    "chosen_cells",
    "crossed_interval",
    "failed_rows",
    "first_to_probe",
    "load_study",
    "needs_probe",
    "open_study",
    "over_worlds",
    "plan_study",
    "plan_text",
    "probe",
    "run_study",
    "study_tables",
    "study_text",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
