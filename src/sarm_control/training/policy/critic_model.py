"""A critic with layers of its own, which start as the SARM's trunk.

Its states are from the start those that the reward is a function of.

Shapes: `M` answer tokens of a batch, `D` hidden size of the trunk.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ModelError
from sarm_control.reward_model import RewardModel
from sarm_control.seeds import derive_seed
from sarm_control.training.config.run_config import PolicyConfig
from sarm_control.training.policy.critic import AdapterCritic, Critic, ValueHead
from sarm_control.training.policy.lora import inject_adapter, recompute_layers
from sarm_control.training.policy.policy import Policy
from sarm_control.training.policy.token_batch import TokenBatch

_PROBE = "What is the capital of France?"
_INSTEAD = "use --set training.value=head, or a SARM built on the policy's own base"


class ModelCritic:
    """A copy of the SARM's layers, and a head.

    With adapters, the frozen weights are shared with the reward model. Without, they are copied in float32
    and every weight is trained.

    Args:
        trunk: the decoder of a SARM, which stays unchanged.
        device: of the policy.
        head_size: D.
        trained: train every weight; otherwise adapters are injected afterwards.
    """

    def __init__(self, trunk: Any, device: torch.device, head_size: int, *, trained: bool) -> None:
        self.model = _copy(trunk, shared=not trained and trunk.device == device).to(device).eval()
        if trained:
            self.model.float().requires_grad_(True)
        self.head = ValueHead(head_size).to(device)
        self._layers = [part for part in self.model.modules() if hasattr(part, "gradient_checkpointing")]

    def values(self, batch: TokenBatch, hidden: Tensor) -> Tensor:
        """The head applied to the critic's own states; the policy's are not used."""
        # a bfloat16 trunk with float32 adapters needs autocast to join the two types
        half = next(self.model.parameters()).dtype == torch.bfloat16
        with self._recomputing(), torch.autocast(hidden.device.type, torch.bfloat16, enabled=half):
            states = self.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        values: Tensor = self.head(states[batch.rows, batch.positions])
        return values

    def body(self) -> Mapping[str, nn.Parameter]:
        """The weights that are trained below the head."""
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

    @contextlib.contextmanager
    def _recomputing(self) -> Iterator[None]:
        """As in the policy: transformers recomputes a layer only while the layer is in training mode."""
        for layer in self._layers:
            layer.training = layer.gradient_checkpointing and torch.is_grad_enabled()
        yield
        for layer in self._layers:
            layer.training = False


def attach_critic(
    policy: Policy,
    kind: Literal["head", "adapter", "model"],
    settings: PolicyConfig,
    model: RewardModel,
    *,
    seed: int,
    longest: int,
) -> None:
    """Gives the policy the critic that `training.value` names.

    Args:
        policy: it has a head on its own states, which `head` leaves as it is.
        kind: `training.value`.
        settings: `policy` of the run: adapters, gradient checkpointing.
        model: the SARM of the reward, whose trunk a `model` critic starts from.
        seed: of the run.
        longest: tokens of the longest prompt and answer.

    Raises:
        ModelError: a trunk that does not read the policy's tokens.
    """
    if kind == "adapter":
        assert settings.lora is not None
        policy.critic = AdapterCritic(policy.model, policy.token_states, settings.lora, seed)
    elif kind == "model":
        check_room(getattr(model.trunk.model.config, "max_position_embeddings", None), longest)
        policy.critic = model_critic(policy, model, settings, seed)


def model_critic(policy: Policy, model: RewardModel, settings: PolicyConfig, seed: int) -> Critic:
    """A `ModelCritic` with adapters where the policy has them.

    Args:
        policy: the critic reads its tokens.
        model: the SARM that it starts from.
        settings: `policy` of the run: adapters, gradient checkpointing.
        seed: of the run.

    Raises:
        ModelError: the trunk numbers tokens otherwise or has another chat template.
    """
    check_tokens_agree(policy.template, model.template)
    full = settings.lora is None
    critic = ModelCritic(model.trunk.model, policy.device, model.trunk.hidden_size, trained=full)
    if settings.gradient_checkpointing:
        recompute_layers(critic.model)
    if settings.lora is not None:
        inject_adapter(critic.model, settings.lora, derive_seed(seed, "critic"))
    return critic


def check_tokens_agree(policy: ChatTemplate, trunk: ChatTemplate) -> None:
    """Refuses a trunk that would read the policy's token ids as other tokens.

    Raises:
        ModelError: names a token that differs, or says that the chat templates differ.
    """
    ours, theirs = policy.tokenizer.get_vocab(), trunk.tokenizer.get_vocab()
    differing = [token for token, number in ours.items() if theirs.get(token) != number]
    if differing:
        example = min(differing, key=ours.__getitem__)
        raise ModelError(
            f"training.value: model needs a SARM that reads the policy's tokens, but {len(differing)} of "
            f"{len(ours)} differ: {example!r} is {ours[example]} for the policy and "
            f"{theirs.get(example, 'unknown')} for the SARM",
            hint=_INSTEAD,
        )
    # equal vocabularies can still have chat templates that differ in headers or spaces
    agree = policy.encode_prompt(_PROBE) == trunk.encode_prompt(_PROBE)
    if not agree or policy.end_of_turn_id != trunk.end_of_turn_id:
        raise ModelError(
            "training.value: model needs a SARM that reads the policy's conversations, but their chat "
            "templates write different tokens",
            hint=_INSTEAD,
        )


def check_room(room: int | None, longest: int) -> None:
    """Refuses conversations that the SARM's trunk could not read whole.

    Args:
        room: tokens of its context; None where it says none.
        longest: tokens of the longest prompt and answer.

    Raises:
        ModelError: naming both.
    """
    if room and longest > room:
        raise ModelError(
            f"training.value: model reads prompts with their answers, here up to {longest} tokens, but the "
            f"SARM's context has {room}",
            hint="use --set training.value=head, or lower training.max_new_tokens",
        )


def _copy(trunk: Any, *, shared: bool) -> Any:
    """A copy of the modules; with `shared` the tensors are those of the original."""
    # deepcopy takes what its memo holds for copied already
    tensors = [*trunk.parameters(), *trunk.buffers()] if shared else []
    return copy.deepcopy(trunk, {id(tensor): tensor for tensor in tensors})
