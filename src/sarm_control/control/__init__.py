"""Scores into the reward that a policy sees.

In: `Scored` and the state of the controls. Out: `ShapedReward`, one column for each part.
Holds edits, penalties, the human-KL term, target rates, and the ledger of what each latent added.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.control.controls import Controls
    from sarm_control.control.density_ratio.estimate import KLEstimate, estimate_kl
    from sarm_control.control.density_ratio.logistic import LogRatio, fit_log_ratio
    from sarm_control.control.edits.edit_files import (
        EditFile,
        check_head,
        edits_in,
        load_edits,
        read_edit_file,
        save_edits,
    )
    from sarm_control.control.edits.edited_checkpoint import apply_to_checkpoint
    from sarm_control.control.edits.edits import (
        Edit,
        apply_edits,
        check_one_edit_each,
        edit_delta,
        edited_rewards,
        moved_rewards,
        parse_edit,
        unrounded_rewards,
    )
    from sarm_control.control.edits.specs import check_exists, in_sd
    from sarm_control.control.human_kl import HumanKL
    from sarm_control.control.ledger import Floats, Integers, Ledger, latent_ledger, prompt_means
    from sarm_control.control.pattern_penalty import PatternPenalty, pattern_amounts
    from sarm_control.control.penalties import (
        Penalty,
        Watched,
        metric_names,
        named_forms,
        parse_penalty,
        watched_columns,
        watched_name,
    )
    from sarm_control.control.reference import ReferenceStatistics
    from sarm_control.control.shaped import ShapedReward
    from sarm_control.control.state import ControlState
    from sarm_control.control.training_reward import (
        PATTERN,
        SHAPING,
        TOTAL,
        Array,
        RewardBreakdown,
        RewardRule,
        Shaping,
        preference_as_reward,
    )

_HOME_OF = {
    "Array": "training_reward",
    "ControlState": "state",
    "Controls": "controls",
    "Edit": "edits.edits",
    "EditFile": "edits.edit_files",
    "Floats": "ledger",
    "HumanKL": "human_kl",
    "Integers": "ledger",
    "KLEstimate": "density_ratio.estimate",
    "Ledger": "ledger",
    "LogRatio": "density_ratio.logistic",
    "RewardRule": "training_reward",
    "Penalty": "penalties",
    "ReferenceStatistics": "reference",
    "RewardBreakdown": "training_reward",
    "SHAPING": "training_reward",
    "ShapedReward": "shaped",
    "Shaping": "training_reward",
    "TOTAL": "training_reward",
    "PATTERN": "training_reward",
    "PatternPenalty": "pattern_penalty",
    "pattern_amounts": "pattern_penalty",
    "apply_edits": "edits.edits",
    "apply_to_checkpoint": "edits.edited_checkpoint",
    "check_exists": "edits.specs",
    "check_head": "edits.edit_files",
    "check_one_edit_each": "edits.edits",
    "edit_delta": "edits.edits",
    "edited_rewards": "edits.edits",
    "estimate_kl": "density_ratio.estimate",
    "fit_log_ratio": "density_ratio.logistic",
    "in_sd": "edits.specs",
    "latent_ledger": "ledger",
    "load_edits": "edits.edit_files",
    "metric_names": "penalties",
    "moved_rewards": "edits.edits",
    "parse_edit": "edits.edits",
    "parse_penalty": "penalties",
    "preference_as_reward": "training_reward",
    "prompt_means": "ledger",
    "edits_in": "edits.edit_files",
    "read_edit_file": "edits.edit_files",
    "save_edits": "edits.edit_files",
    "named_forms": "penalties",
    "unrounded_rewards": "edits.edits",
    "Watched": "penalties",
    "watched_columns": "penalties",
    "watched_name": "penalties",
}

_RENAMED = {
    "PayRule": "RewardRule",
    "Rewards": "RewardBreakdown",
    "told_forms": "named_forms",
}
"""Former names, for one version."""

__all__ = [
    "PATTERN",
    "SHAPING",
    "TOTAL",
    "Array",
    "ControlState",
    "Controls",
    "Edit",
    "EditFile",
    "Floats",
    "HumanKL",
    "Integers",
    "KLEstimate",
    "Ledger",
    "LogRatio",
    "PatternPenalty",
    "Penalty",
    "ReferenceStatistics",
    "RewardBreakdown",
    "RewardRule",
    "ShapedReward",
    "Shaping",
    "Watched",
    "apply_edits",
    "apply_to_checkpoint",
    "check_exists",
    "check_head",
    "check_one_edit_each",
    "edit_delta",
    "edited_rewards",
    "edits_in",
    "estimate_kl",
    "fit_log_ratio",
    "in_sd",
    "latent_ledger",
    "load_edits",
    "metric_names",
    "moved_rewards",
    "named_forms",
    "parse_edit",
    "parse_penalty",
    "pattern_amounts",
    "preference_as_reward",
    "prompt_means",
    "read_edit_file",
    "save_edits",
    "unrounded_rewards",
    "watched_columns",
    "watched_name",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
