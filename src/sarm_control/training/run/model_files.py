"""What a run would find wrong once its models are loaded, found by their files alone.

No weights are read but the reward model's head. What can only be a hub id is taken on trust: nothing is
downloaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sarm_control.data import Row
from sarm_control.embedded import model_folder
from sarm_control.training.config.run_config import PolicyConfig, RunConfig
from sarm_control.training.policy.adapter_files import PolicySource, checked_source

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate


def check_files(config: RunConfig, trained_on: Sequence[Row], evaluated: Sequence[Row]) -> list[str]:
    """Checks models, adapters, demonstrations and every prompt, by the templates of both models.

    Args:
        config: the run's settings.
        trained_on: the rows whose prompts are trained on.
        evaluated: those of evaluations, as they are drawn when no prompt is too long.

    Returns:
        What `data.overlong` does to prompts, in words.

    Raises:
        SarmError: what the run itself would raise before its first step.
    """
    from sarm_control.training.data.usable_prompts import fills_reward_context, usable_prompts

    reward = _folder(config.reward.model)
    of_reward = None if reward is None else _check_reward(config, reward)
    source = checked_source(config.policy)
    policy = Path(source.base)
    if not policy.is_dir():
        if of_reward is not None:
            for row in (*trained_on, *evaluated):
                fills_reward_context(of_reward, row, config.data.overlong)
        return []
    template = _template(Path(source.tokenizer), config)
    skeleton = _skeleton(policy)
    context = getattr(skeleton.config, "max_position_embeddings", None)
    prompts = usable_prompts(config, trained_on, template, int(context) if context else None, of_reward)
    if config.training.value == "model" and of_reward is not None:
        _check_critic(template, of_reward, prompts.longest + config.training.max_new_tokens)
    if config.training.sampler == "generate":
        _check_sampler(config, policy, skeleton)
    _check_adapters(config.policy, source, skeleton)
    return prompts.lines


def _check_adapters(config: PolicyConfig, source: PolicySource, skeleton: Any) -> None:
    """Names and shapes of the adapters that are loaded, and the targets of those that are new."""
    if config.lora is None and not source.adapters:
        return
    from sarm_control.training.policy.lora import add_adapters, continue_adapter, merge_adapter

    merged, continued = source.split(config)
    for adapter in merged:
        skeleton = merge_adapter(skeleton, adapter)
    if continued is not None:
        continue_adapter(skeleton, continued)
    elif config.lora is not None:
        # any seed: on a skeleton only names and shapes are looked at
        add_adapters(skeleton, config.lora, seed=0)


def _folder(name: str) -> Path | None:
    """Where the reward model lies; None where that is for the hub to say."""
    place = Path(str(model_folder(name, "sarm") or name))
    return place if place.is_dir() else None


def _check_reward(config: RunConfig, folder: Path) -> "ChatTemplate":
    """Checks the head against the settings; the chat template is returned."""
    from sarm_control.reward_model import describe, read_template
    from sarm_control.training.run.demonstrations import check_human_model, check_human_rows

    described = describe(folder, template_date=config.data.template_date)
    config.reward.controls().check(described.latents, described.head.fingerprint, described.kind)
    check_human_model(
        config.data.human, config.reward.human_kl, described.head.fingerprint, described.model_fingerprint
    )
    template = read_template(folder, template_date=config.data.template_date)
    check_human_rows(config.data.human, config.reward.human_kl, template, config.data.row_options)
    return template


def _template(folder: Path, config: RunConfig) -> "ChatTemplate":
    from sarm_control.conversation import ChatTemplate, load_tokenizer

    tokenizer = load_tokenizer(str(folder), local_files_only=True)
    return ChatTemplate(tokenizer, date=config.data.template_date)


def _skeleton(folder: Path) -> Any:
    """The language model without memory for its weights; what its files hold is counted by name."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sarm_control.reward_model import from_checkpoint, quiet_transformers, read_index

    read_index(folder, folder.name)
    with quiet_transformers(), from_checkpoint(folder.name), torch.device("meta"):
        stored = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return AutoModelForCausalLM.from_config(stored, trust_remote_code=False)


def _check_critic(template: "ChatTemplate", of_reward: "ChatTemplate", longest: int) -> None:
    from sarm_control.training.policy.critic_model import check_room, check_tokens_agree

    check_room(of_reward.max_length, longest)
    check_tokens_agree(template, of_reward)


def _check_sampler(config: RunConfig, folder: Path, skeleton: Any) -> None:
    import torch

    from sarm_control.training.policy.policy import computes_in_half
    from sarm_control.training.rollout.generate_sampler import check_static_cache

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = computes_in_half(config.policy, str(folder), local_files_only=True, device=device)
    check_static_cache(skeleton, mixed=half and config.policy.lora is None)
