"""A critic of its own that begins as the SARM's trunk: it sees from the start what the reward is read from.

Shapes: `M` answer tokens of a batch, `D` hidden size of the trunk.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ModelError
from sarm_control.reward_model import RewardModel
from sarm_control.seeds import derive_seed
from sarm_control.training.policy.critic import AdapterCritic, Critic, ValueHead
from sarm_control.training.policy.lora import inject_adapter, recompute_layers
from sarm_control.training.policy.token_batch import TokenBatch

if TYPE_CHECKING:
    from sarm_control.training.config.run_config import PolicyConfig, RunConfig
    from sarm_control.training.policy.policy import Policy

_PROBE = "What is the capital of France?"
_INSTEAD = "use --set training.value=head, or a SARM built on the policy's own base"


class ModelCritic:
    """The SARM's layers with weights of their own, and a head.

    With adapters the frozen layers are the reward model's own tensors, held once; without, they are
    copied in float32 and every weight is trained.

    Args:
        trunk: the decoder of a SARM, which is left as it is.
        device: where the policy is.
        head_size: D.
    """

    def __init__(self, trunk: Any, device: torch.device, head_size: int, *, trained: bool) -> None:
        self.model = _copy(trunk, shared=not trained and trunk.device == device).to(device).eval()
        if trained:
            self.model.float().requires_grad_(True)
        self.head = ValueHead(head_size).to(device)
        self._layers = [part for part in self.model.modules() if hasattr(part, "gradient_checkpointing")]

    def values(self, batch: TokenBatch, hidden: Tensor) -> Tensor:
        """The head applied to the critic's own states; the policy's are not used."""
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
        """As in the policy: a layer is computed again only while it is in training mode."""
        for layer in self._layers:
            layer.training = layer.gradient_checkpointing and torch.is_grad_enabled()
        yield
        for layer in self._layers:
            layer.training = False


def attach_critic(policy: "Policy", config: "RunConfig", model: RewardModel, longest: int) -> None:
    """Gives the policy the critic of `training.value`.

    Args:
        policy: has a head on its own states, which `head` leaves.
        config: the run's settings.
        model: the SARM that pays, whose trunk a `model` critic starts from.
        longest: tokens of the longest prompt and answer.

    Raises:
        ModelError: a trunk that does not read the policy's tokens.
    """
    kind, lora, seed = config.training.value, config.policy.lora, config.training.seed
    if kind == "adapter":
        assert lora is not None
        policy.critic = AdapterCritic(policy, lora, seed)
    elif kind == "model":
        check_room(getattr(model.trunk.model.config, "max_position_embeddings", None), longest)
        policy.critic = model_critic(policy, model, config.policy, seed)


def model_critic(policy: "Policy", model: RewardModel, settings: "PolicyConfig", seed: int) -> Critic:
    """A `ModelCritic` with adapters where the policy has them.

    Args:
        policy: whose tokens it reads.
        model: the SARM it starts from.
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
    """Refuses a trunk that would read other words than the policy wrote.

    Raises:
        ModelError: says which token, or that the chat templates differ, and what to type instead.
    """
    ours, theirs = policy.tokenizer.get_vocab(), trunk.tokenizer.get_vocab()
    other = [token for token, number in ours.items() if theirs.get(token) != number]
    if other:
        example = min(other, key=ours.__getitem__)
        raise ModelError(
            f"training.value: model needs a SARM that reads the policy's tokens, but {len(other)} of "
            f"{len(ours)} differ: {example!r} is {ours[example]} for the policy and "
            f"{theirs.get(example, 'unknown')} for the SARM",
            hint=_INSTEAD,
        )
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
    """The modules copied; with `shared` their tensors stay those of the original."""
    tensors = [*trunk.parameters(), *trunk.buffers()] if shared else []
    return copy.deepcopy(trunk, {id(tensor): tensor for tensor in tensors})
