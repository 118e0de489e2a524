"""The controlled reward in other trainers.

In: answers as TRL, verl, OpenRLHF, slime or ms-swift send them. Out: rewards in the form that each expects.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.engines.doctor.examination import Adapter, AdapterExamination, examine
    from sarm_control.engines.doctor.http import ServerPlace, adapters
    from sarm_control.engines.doctor.trl import examine_trl
    from sarm_control.engines.doctor.verl import MANAGER, VerlManager, verl_is_here
    from sarm_control.engines.reward.controlled_reward import ControlledReward
    from sarm_control.engines.reward.learnt_state import check_served, keep_state, load_state_file
    from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
    from sarm_control.engines.server_client import LEARN_HEADER, first_line
    from sarm_control.engines.trl import TrlReward

_HOME_OF = {
    "Adapter": "doctor.examination",
    "ControlFiles": "reward.open_reward",
    "ControlledReward": "reward.controlled_reward",
    "AdapterExamination": "doctor.examination",
    "LEARN_HEADER": "server_client",
    "MANAGER": "doctor.verl",
    "ServerPlace": "doctor.http",
    "TrlReward": "trl",
    "VerlManager": "doctor.verl",
    "adapters": "doctor.http",
    "check_served": "reward.learnt_state",
    "examine": "doctor.examination",
    "examine_trl": "doctor.trl",
    "first_line": "server_client",
    "keep_state": "reward.learnt_state",
    "open_reward": "reward.open_reward",
    "load_state_file": "reward.learnt_state",
    "verl_is_here": "doctor.verl",
}

_RENAMED = {
    "Examination": "AdapterExamination",
    "Place": "ServerPlace",
    "take_up_state": "load_state_file",
}
"""Former names, for one version."""

__all__ = [
    "LEARN_HEADER",
    "MANAGER",
    "Adapter",
    "AdapterExamination",
    "ControlFiles",
    "ControlledReward",
    "ServerPlace",
    "TrlReward",
    "VerlManager",
    "adapters",
    "check_served",
    "examine",
    "examine_trl",
    "first_line",
    "keep_state",
    "load_state_file",
    "open_reward",
    "verl_is_here",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
