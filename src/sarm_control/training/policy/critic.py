"""Critics, which estimate the value of a state: the reward that the rest of the answer will bring.

A value head stands on the policy's own states or on those of a second adapter (here), or on a model of its
own (`critic_model`).

Shapes: `M` answer tokens of a batch, `D` hidden size.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sarm_control.seeds import derive_seed
from sarm_control.training.config.run_config import LoraConfig
from sarm_control.training.policy.lora import active_adapter, adapter_weights, add_critic_adapter
from sarm_control.training.policy.token_batch import TokenBatch


class ValueHead(nn.Module):
    """A linear function of the hidden state, which is standardised per token; 0 everywhere at first."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        # zero, so that the first values are 0 and the first advantages depend on rewards alone
        self.weight = nn.Parameter(torch.zeros(hidden_size))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., D] states to [...] float32 values."""
        features = nn.functional.layer_norm(hidden.float(), hidden.shape[-1:])
        return (features * self.weight).sum(dim=-1) + self.bias


class Critic(Protocol):
    """A value for every answer token.

    Args:
        head: its last layer.
    """

    head: ValueHead

    def values(self, batch: TokenBatch, hidden: Tensor) -> Tensor:
        """[M] float32 values of the states the answer tokens were chosen in.

        Args:
            batch: the rows.
            hidden: [M, D] the policy's own last states there.
        """

    def body(self) -> Mapping[str, nn.Parameter]:
        """Its trained weights below the head, by name; empty when it stands on the policy's own states."""


class HeadCritic:
    """A linear head on the policy's own states: no further pass and hardly any weights."""

    def __init__(self, hidden_size: int, device: torch.device) -> None:
        self.head = ValueHead(hidden_size).to(device)

    def values(self, batch: TokenBatch, hidden: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's
        """The head applied to the policy's states; so the value loss trains the policy's weights too."""
        values: Tensor = self.head(hidden)
        return values

    def body(self) -> Mapping[str, nn.Parameter]:
        """Empty: the states are the policy's."""
        return {}


class AdapterCritic:
    """A second LoRA adapter on the policy's frozen base, and a head: one more pass, but no second model.

    Args:
        model: the policy's peft model, which gets the adapter.
        states: the policy's pass over a batch, [M, D] the last state each answer token was chosen in.
        lora: rank, scale and targets, equal to the policy's.
        seed: of the run.

    Raises:
        ConfigError: a target that is not the name of a linear module.
    """

    def __init__(
        self, model: Any, states: Callable[[TokenBatch], Tensor], lora: LoraConfig, seed: int
    ) -> None:
        add_critic_adapter(model, lora, derive_seed(seed, "critic"))
        self._causal = model.get_base_model()
        self._states = states
        self._weights = adapter_weights(model)
        embedding = self._causal.get_input_embeddings()
        self.head = ValueHead(embedding.embedding_dim).to(embedding.weight.device)

    def values(self, batch: TokenBatch, hidden: Tensor) -> Tensor:  # noqa: ARG002 - the protocol's
        """The head applied to the states under the critic's adapter."""
        with active_adapter(self._causal):
            values: Tensor = self.head(self._states(batch))
        return values

    def body(self) -> Mapping[str, nn.Parameter]:
        """The adapter's weights."""
        return self._weights
