"""What a run will need before it starts: parameters, memory, seconds and disk, and what to change.

In: the configuration of a run, `config.json` and the headers of the models' files. Out: a `Plan`. Names that
need torch load on first use.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.planning.machines import MACHINES, NAMES, Machine, Work, machine
    from sarm_control.planning.plan import MemoryTooSmall, Plan
    from sarm_control.planning.scoring_plan import ScoringRequest, plan_scoring
    from sarm_control.planning.training_plan import check_room, plan_training

_HOME_OF = {
    "MACHINES": "machines",
    "Machine": "machines",
    "MemoryTooSmall": "plan",
    "NAMES": "machines",
    "Plan": "plan",
    "machine": "machines",
    "ScoringRequest": "scoring_plan",
    "Work": "machines",
    "check_room": "training_plan",
    "plan_scoring": "scoring_plan",
    "plan_training": "training_plan",
}

__all__ = [
    "MACHINES",
    "NAMES",
    "Machine",
    "MemoryTooSmall",
    "Plan",
    "ScoringRequest",
    "Work",
    "check_room",
    "machine",
    "plan_scoring",
    "plan_training",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF)
