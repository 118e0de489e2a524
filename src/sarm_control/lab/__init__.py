"""Worlds with known truth.

In: a seed. Out: a policy, a reward model with planted faults, data, and a gold reward that knows the truth.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.lab.attached import AttachedConfig, build_attached
    from sarm_control.lab.builder import WorldConfig, build_world
    from sarm_control.lab.judges.truth import Truth
    from sarm_control.lab.study.arms import controlled, random_controls
    from sarm_control.lab.study.audit_attributes import lab_attributes
    from sarm_control.lab.study.demo import (
        FlatteryExample,
        JudgedAnswer,
        Stage,
        run_config,
        set_stage,
        train_arm,
    )
    from sarm_control.lab.study.study import Called, called, shipped_audit
    from sarm_control.lab.study.trial import run_trial
    from sarm_control.lab.world import World

_HOME_OF = {
    "AttachedConfig": "attached",
    "Truth": "judges.truth",
    "build_attached": "attached",
    "Called": "study.study",
    "FlatteryExample": "study.demo",
    "JudgedAnswer": "study.demo",
    "Stage": "study.demo",
    "World": "world",
    "WorldConfig": "builder",
    "build_world": "builder",
    "called": "study.study",
    "lab_attributes": "study.audit_attributes",
    "controlled": "study.arms",
    "random_controls": "study.arms",
    "run_config": "study.demo",
    "run_trial": "study.trial",
    "set_stage": "study.demo",
    "shipped_audit": "study.study",
    "train_arm": "study.demo",
}

_RENAMED = {
    "Example": "FlatteryExample",
    "Paid": "JudgedAnswer",
}
"""Former names, for one version."""

__all__ = [
    "AttachedConfig",
    "Called",
    "FlatteryExample",
    "JudgedAnswer",
    "Stage",
    "Truth",
    "World",
    "WorldConfig",
    "build_attached",
    "build_world",
    "called",
    "controlled",
    "lab_attributes",
    "random_controls",
    "run_config",
    "run_trial",
    "set_stage",
    "shipped_audit",
    "train_arm",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
