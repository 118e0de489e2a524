"""The models of a run without their weights: made on the meta device, of real widths and few layers."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sarm_control.planning.live_memory import onto_device
from sarm_control.planning.models import RewardShape
from sarm_control.reward_model import Trunk, cut_config, quiet_transformers, takes_sdpa
from sarm_control.training import (
    AdapterCritic,
    LoraConfig,
    ModelCritic,
    Policy,
    PolicyConfig,
    TrainingConfig,
    add_adapters,
    inject_adapter,
    recompute_layers,
)


@dataclass(frozen=True)
class PolicyShape:
    """The policy of a run without its weights.

    Args:
        config: of the whole model.
        settings: the section `policy` of the run.
        training: the section `training`.
        half: whether it computes in bfloat16.
        on_gpu: whether it trains with fused attention, as on a GPU.
        lora: of its adapters; None trains every weight.
        continued: whether the reference has a frozen copy of the adapter.
    """

    config: Any
    settings: PolicyConfig
    training: TrainingConfig
    half: bool
    on_gpu: bool
    lora: LoraConfig | None
    continued: bool = False

    @property
    def layers(self) -> int:
        """Of the whole model."""
        return int(self.config.num_hidden_layers)


class _WithoutNumbers(Policy):
    """A policy whose weights have no values to check, and that may be planned for a GPU."""

    on_gpu = False

    @property
    def packs(self) -> bool:
        """As the planned machine does."""
        return super().packs and not self.on_gpu

    def _check_head(self) -> None:
        """The weights are not there."""


def policy_skeleton(shape: PolicyShape, layers: int) -> Any:
    """The policy's language model on the meta device, of the type it trains in."""
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if shape.half and shape.lora is not None else torch.float32
    cut = cut_config(shape.config, layers, "the policy")
    with quiet_transformers(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(cut, trust_remote_code=False, dtype=dtype)
    model.tie_weights()
    model.set_attn_implementation("sdpa" if shape.on_gpu and takes_sdpa(model) else "eager")
    if shape.settings.gradient_checkpointing:
        recompute_layers(model)
    return model


def trunk_skeleton(shape: RewardShape, layers: int) -> Trunk:
    """The reward model's trunk on the meta device."""
    from transformers import AutoModel

    cut = cut_config(shape.config, layers, shape.name)
    with quiet_transformers(), torch.device("meta"):
        return Trunk(AutoModel.from_config(cut, dtype=shape.dtype), final_norm=shape.final_norm)


def make_policy(shape: PolicyShape, reward: RewardShape, layers: int, critic_layers: int) -> Policy:
    """The policy of a run with adapters and critic, on the meta device.

    Args:
        shape: of the policy.
        reward: whose trunk a critic of layers of its own starts from.
        layers: of the policy.
        critic_layers: of such a critic.
    """
    base = policy_skeleton(shape, layers)
    reference = copy.deepcopy(base).requires_grad_(False) if shape.lora is None else None
    model = base if shape.lora is None else add_adapters(base, shape.lora, 0)
    # all that a policy asks of its template before it reads text
    template: Any = SimpleNamespace(end_ids=(0,))
    policy = _WithoutNumbers(model, template, reference=reference, autocast=shape.half)
    policy.on_gpu = shape.on_gpu
    if shape.training.value == "adapter" and shape.lora is not None:
        policy.critic = AdapterCritic(model, policy.token_states, shape.lora, 0)
    elif shape.training.value == "model":
        policy.critic = _model_critic(shape, reward, critic_layers)
    return policy


def materialise(policy: Policy, device: str = "cpu") -> Policy:
    """The policy's models and critic with weights as they would lie on a device; inside `counted` alone."""
    for part in parts_of(policy):
        onto_device(part, device)
    policy.device = torch.device(device)
    return policy


def parts_of(policy: Policy) -> list[nn.Module]:
    """The policy's model, its reference where that is another, the critic's own model and its head."""
    further = [policy.reference, getattr(policy.critic, "model", None)]
    return [policy.model, *(part for part in further if part is not None), policy.critic.head]


def _model_critic(shape: PolicyShape, reward: RewardShape, layers: int) -> ModelCritic:
    trunk = trunk_skeleton(reward, layers).model
    critic = ModelCritic(trunk, torch.device("meta"), reward.width, trained=shape.lora is None)
    if shape.settings.gradient_checkpointing:
        recompute_layers(critic.model)
    if shape.lora is not None:
        inject_adapter(critic.model, shape.lora, 0)
    return critic
