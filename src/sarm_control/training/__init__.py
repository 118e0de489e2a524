"""Training a policy on prompts.

In: a configuration, a policy and a controlled reward. Out: a run folder with metrics, checkpoints and the
policy. The path is config, data, policy, rollout, algorithm, monitor, run.
"""

from typing import TYPE_CHECKING

from sarm_control.lazy import attributes_of

if TYPE_CHECKING:
    from sarm_control.training.algorithm.losses import kl_k1, kl_k3
    from sarm_control.training.algorithm.reference_rewards import PROMPTS, REWARDS, ReferenceRewards
    from sarm_control.training.algorithm.reward import PolicyReward
    from sarm_control.training.algorithm.trainer import Trainer
    from sarm_control.training.config.check_names import Check
    from sarm_control.training.config.feature_edits import edits_of_list
    from sarm_control.training.config.roles import (
        CONTROLLED,
        NO_CONTROL,
        PLACEBO,
        ROLE,
        Role,
        inferred_role,
        known_role,
        settled_role,
    )
    from sarm_control.training.config.run_config import LoraConfig, PolicyConfig, RunConfig, TrainingConfig
    from sarm_control.training.config.validation import load_config
    from sarm_control.training.config.yaml_source import (
        Document,
        dump_yaml,
        items,
        parse_setting,
        plain_scalar,
        read_document,
        setting,
    )
    from sarm_control.training.data.evaluation_prompts import evaluation_lines, evaluation_rows
    from sarm_control.training.data.prompts import training_rows
    from sarm_control.training.data.usable_prompts import usable_prompts
    from sarm_control.training.distributed.launcher import in_words
    from sarm_control.training.distributed.processes import Processes, connected
    from sarm_control.training.monitor.checks.over_refusal import refuses
    from sarm_control.training.monitor.evaluation import Gold
    from sarm_control.training.monitor.ledger_file import read_ledger
    from sarm_control.training.policy.adapter_files import checked_source
    from sarm_control.training.policy.cpu_linear import can_pack
    from sarm_control.training.policy.critic import AdapterCritic
    from sarm_control.training.policy.critic_model import ModelCritic
    from sarm_control.training.policy.lora import add_adapters, inject_adapter, recompute_layers
    from sarm_control.training.policy.policy import Policy, computes_in_half
    from sarm_control.training.policy.token_batch import TokenBatch
    from sarm_control.training.rollout.rollout import PromptRow, Rollout, encode_prompts, sample_answers
    from sarm_control.training.rollout.sampler import CachedSampler, SampleRequest, draw
    from sarm_control.training.run.checkpoint import (
        Checkpoint,
        list_checkpoints,
        load_checkpoint,
        newest_checkpoint,
        step_of,
    )
    from sarm_control.training.run.completed_run import finished_run
    from sarm_control.training.run.demonstrations import check_human, human_buffer, read_demonstrations
    from sarm_control.training.run.dry_run import check_models, plan_lines
    from sarm_control.training.run.jsonl import stable, uninterrupted
    from sarm_control.training.run.model_files import check_files
    from sarm_control.training.run.run_folder import (
        RunFolder,
        Start,
        check_run,
        config_differences,
        hold_run,
        read_run_config,
        record_role,
        role_of_run,
        settled_days,
        start_run,
    )
    from sarm_control.training.run.train import HUMAN, run_training
    from sarm_control.training.tracking.trackers import check_trackers

_HOME_OF = {
    "SampleRequest": "rollout.sampler",
    "TokenBatch": "policy.token_batch",
    "CachedSampler": "rollout.sampler",
    "Check": "config.check_names",
    "Checkpoint": "run.checkpoint",
    "Document": "config.yaml_source",
    "Gold": "monitor.evaluation",
    "CONTROLLED": "config.roles",
    "HUMAN": "run.train",
    "NO_CONTROL": "config.roles",
    "PLACEBO": "config.roles",
    "ROLE": "config.roles",
    "Role": "config.roles",
    "PROMPTS": "algorithm.reference_rewards",
    "Policy": "policy.policy",
    "PolicyConfig": "config.run_config",
    "Processes": "distributed.processes",
    "PromptRow": "rollout.rollout",
    "REWARDS": "algorithm.reference_rewards",
    "ReferenceRewards": "algorithm.reference_rewards",
    "Rollout": "rollout.rollout",
    "RunConfig": "config.run_config",
    "RunFolder": "run.run_folder",
    "PolicyReward": "algorithm.reward",
    "Start": "run.run_folder",
    "Trainer": "algorithm.trainer",
    "TrainingConfig": "config.run_config",
    "can_pack": "policy.cpu_linear",
    "check_human": "run.demonstrations",
    "check_files": "run.model_files",
    "check_models": "run.dry_run",
    "check_run": "run.run_folder",
    "check_trackers": "tracking.trackers",
    "config_differences": "run.run_folder",
    "connected": "distributed.processes",
    "dump_yaml": "config.yaml_source",
    "edits_of_list": "config.feature_edits",
    "encode_prompts": "rollout.rollout",
    "evaluation_lines": "data.evaluation_prompts",
    "evaluation_rows": "data.evaluation_prompts",
    "finished_run": "run.completed_run",
    "hold_run": "run.run_folder",
    "human_buffer": "run.demonstrations",
    "in_words": "distributed.launcher",
    "inferred_role": "config.roles",
    "items": "config.yaml_source",
    "kl_k1": "algorithm.losses",
    "kl_k3": "algorithm.losses",
    "known_role": "config.roles",
    "list_checkpoints": "run.checkpoint",
    "load_checkpoint": "run.checkpoint",
    "load_config": "config.validation",
    "newest_checkpoint": "run.checkpoint",
    "parse_setting": "config.yaml_source",
    "plain_scalar": "config.yaml_source",
    "plan_lines": "run.dry_run",
    "read_demonstrations": "run.demonstrations",
    "read_document": "config.yaml_source",
    "read_ledger": "monitor.ledger_file",
    "refuses": "monitor.checks.over_refusal",
    "read_run_config": "run.run_folder",
    "record_role": "run.run_folder",
    "role_of_run": "run.run_folder",
    "run_training": "run.train",
    "sample_answers": "rollout.rollout",
    "setting": "config.yaml_source",
    "settled_days": "run.run_folder",
    "settled_role": "config.roles",
    "stable": "run.jsonl",
    "start_run": "run.run_folder",
    "step_of": "run.checkpoint",
    "training_rows": "data.prompts",
    "uninterrupted": "run.jsonl",
    "LoraConfig": "config.run_config",
    "AdapterCritic": "policy.critic",
    "ModelCritic": "policy.critic_model",
    "add_adapters": "policy.lora",
    "inject_adapter": "policy.lora",
    "recompute_layers": "policy.lora",
    "draw": "rollout.sampler",
    "usable_prompts": "data.usable_prompts",
    "checked_source": "policy.adapter_files",
    "computes_in_half": "policy.policy",
}

_RENAMED = {
    "SarmReward": "PolicyReward",
}
"""Former names, for one version."""

__all__ = [
    "CONTROLLED",
    "HUMAN",
    "NO_CONTROL",
    "PLACEBO",
    "PROMPTS",
    "REWARDS",
    "ROLE",
    "AdapterCritic",
    "CachedSampler",
    "Check",
    "Checkpoint",
    "Document",
    "Gold",
    "LoraConfig",
    "ModelCritic",
    "Policy",
    "PolicyConfig",
    "PolicyReward",
    "Processes",
    "PromptRow",
    "ReferenceRewards",
    "Role",
    "Rollout",
    "RunConfig",
    "RunFolder",
    "SampleRequest",
    "Start",
    "TokenBatch",
    "Trainer",
    "TrainingConfig",
    "add_adapters",
    "can_pack",
    "check_files",
    "check_human",
    "check_models",
    "check_run",
    "check_trackers",
    "checked_source",
    "computes_in_half",
    "config_differences",
    "connected",
    "draw",
    "dump_yaml",
    "edits_of_list",
    "encode_prompts",
    "evaluation_lines",
    "evaluation_rows",
    "finished_run",
    "hold_run",
    "human_buffer",
    "in_words",
    "inferred_role",
    "inject_adapter",
    "items",
    "kl_k1",
    "kl_k3",
    "known_role",
    "list_checkpoints",
    "load_checkpoint",
    "load_config",
    "newest_checkpoint",
    "parse_setting",
    "plain_scalar",
    "plan_lines",
    "read_demonstrations",
    "read_document",
    "read_ledger",
    "read_run_config",
    "recompute_layers",
    "record_role",
    "refuses",
    "role_of_run",
    "run_training",
    "sample_answers",
    "setting",
    "settled_days",
    "settled_role",
    "stable",
    "start_run",
    "step_of",
    "training_rows",
    "uninterrupted",
    "usable_prompts",
]

if not TYPE_CHECKING:
    __getattr__ = attributes_of(__name__, _HOME_OF, _RENAMED)
