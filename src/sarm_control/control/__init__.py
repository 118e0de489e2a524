"""Controls: what changes the reward a policy sees. Edits, penalties and the human-KL term."""

from sarm_control.control.controls import Controls
from sarm_control.control.density_ratio import KLEstimate, LogRatio, estimate_kl, fit_log_ratio
from sarm_control.control.edit_files import load_edits, save_edits
from sarm_control.control.edits import Edit, apply_edits, edit_delta, edited_rewards, parse_edit
from sarm_control.control.human_kl import HumanKL
from sarm_control.control.penalties import Penalty, parse_penalty
from sarm_control.control.reference import ReferenceStatistics
from sarm_control.control.shaped import ShapedReward
from sarm_control.control.state import ControlState

__all__ = [
    "ControlState",
    "Controls",
    "Edit",
    "HumanKL",
    "KLEstimate",
    "LogRatio",
    "Penalty",
    "ReferenceStatistics",
    "ShapedReward",
    "apply_edits",
    "edit_delta",
    "edited_rewards",
    "estimate_kl",
    "fit_log_ratio",
    "load_edits",
    "parse_edit",
    "parse_penalty",
    "save_edits",
]
