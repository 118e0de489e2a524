"""Tuning the trunk on preferences, before the autoencoder or through it.

The loss is Bradley-Terry over every chosen-rejected pair of a row, each prompt with the same
weight. Before: a linear reward on the normalised state, thrown away afterwards. After: the
SARM's own reward with the autoencoder frozen (the paper's second stage).

Shapes: `B` answers of a step, `D` hidden size, `L` latents.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sarm_control.build.comparisons import PreferenceRow
from sarm_control.build.extras import require_peft
from sarm_control.build.texts import Answer
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.sarm.autoencoder import Autoencoder, normalise
from sarm_control.sarm.batching import pad_batch, pool_states
from sarm_control.sarm.trunk import Trunk
from sarm_control.seeds import derive_seed, numpy_generator

Reward = Callable[[Tensor], Tensor]
"""Trunk states [B, D] to rewards [B]."""


@dataclass(frozen=True)
class TuneConfig:
    """How the trunk is tuned.

    Args:
        epochs: passes over the preference rows, at least 1.
        mode: "lora" (adapters on every linear layer, merged in at the end) or "full" (every
            weight of the decoder layers).
        rows: preference rows of a step.
        learning_rate: of the trunk; None is 1e-4 for LoRA and 1e-5 for full.
        head_learning_rate: of the head.
        rank: of the LoRA adapters.
        seed: decides the order of the rows and the adapters' initial weights.
    """

    epochs: int
    mode: Literal["lora", "full"] = "lora"
    rows: int = 8
    learning_rate: float | None = None
    head_learning_rate: float = 1e-3
    rank: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be run."""
        if self.epochs < 1:
            raise ConfigError(f"{self.epochs} epochs of tuning: at least 1 is needed")
        if self.mode not in ("lora", "full"):
            raise ConfigError(f"unknown way to tune: {self.mode}", hint="use lora or full")

    @property
    def trunk_rate(self) -> float:
        """The trunk's learning rate."""
        return self.learning_rate or (1e-4 if self.mode == "lora" else 1e-5)


@dataclass(frozen=True)
class Tuned:
    """How tuning went: the mean loss of each epoch in nats, `log 2` is chance."""

    losses: tuple[float, ...]


def tune_before(
    trunk: Trunk,
    template: ChatTemplate,
    answers: Sequence[Answer],
    rows: Sequence[PreferenceRow],
    config: TuneConfig,
    *,
    progress: ProgressFactory = no_progress,
) -> Tuned:
    """Tunes the trunk in place under a linear reward on x, which is not kept.

    Raises:
        MissingExtraError: LoRA without peft.
        TrainingError: no rows, or the loss is not finite.
    """
    head = nn.Parameter(torch.zeros(trunk.hidden_size, device=trunk.device))
    return _tune(trunk, template, answers, rows, config, head, lambda x: normalise(x) @ head, progress)


def tune_after(
    trunk: Trunk,
    autoencoder: Autoencoder,
    weight: NDArray[np.float32],
    template: ChatTemplate,
    answers: Sequence[Answer],
    rows: Sequence[PreferenceRow],
    config: TuneConfig,
    *,
    progress: ProgressFactory = no_progress,
) -> tuple[Tuned, NDArray[np.float32]]:
    """Tunes trunk (in place) and head through the frozen autoencoder; returns the new head [L].

    Raises:
        MissingExtraError: LoRA without peft.
        TrainingError: no rows, or the loss is not finite.
    """
    head = nn.Parameter(torch.from_numpy(weight.copy()).to(trunk.device))

    def reward(states: Tensor) -> Tensor:
        kept = autoencoder.encode(states)
        return (head[kept.indices] * kept.values).sum(dim=-1)

    tuned = _tune(trunk, template, answers, rows, config, head, reward, progress)
    return tuned, head.detach().cpu().numpy().astype(np.float32)


def _tune(
    trunk: Trunk,
    template: ChatTemplate,
    answers: Sequence[Answer],
    rows: Sequence[PreferenceRow],
    config: TuneConfig,
    head: nn.Parameter,
    reward: Reward,
    progress: ProgressFactory,
) -> Tuned:
    if not rows:
        raise TrainingError("no preference row to tune on", hint="give --pairs")
    dtype = next(trunk.parameters()).dtype
    # bfloat16 weights lose updates smaller than 1/256 of themselves.
    trunk.float()
    finish = _open(trunk, config)
    parameters = [p for p in trunk.parameters() if p.requires_grad]
    groups = [
        {"params": parameters, "lr": config.trunk_rate},
        {"params": [head], "lr": config.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    share = _row_weights(rows)
    losses = []
    with progress("Tuning the trunk", config.epochs * len(rows)) as advance:
        for epoch in range(config.epochs):
            order = numpy_generator(config.seed, "tuning order", epoch).permutation(len(rows))
            total = 0.0
            for start in range(0, len(order), config.rows):
                chosen = order[start : start + config.rows]
                loss = sum(share[j] * _row_loss(trunk, template, answers, rows[j], reward) for j in chosen)
                total += _step(optimiser, loss / len(chosen), [*parameters, head]) * len(chosen)
                advance(len(chosen), note=f"loss {total / (start + len(chosen)):.3f}")
            losses.append(total / len(order))
    finish()
    trunk.requires_grad_(False)
    trunk.to(dtype)
    return Tuned(tuple(losses))


def _open(trunk: Trunk, config: TuneConfig) -> Callable[[], None]:
    """Makes the trunk trainable; what it returns puts it back together."""
    if config.mode == "full":
        trunk.layers.requires_grad_(True)
        return lambda: None
    peft = require_peft()
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "adapters"))
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=2 * config.rank, lora_dropout=0.0, target_modules="all-linear"
        )
        with warnings.catch_warnings():
            # peft asks transformers for an attribute by its deprecated name.
            warnings.simplefilter("ignore", FutureWarning)
            # The adapters go into the trunk's own layers, so the trunk runs as before.
            wrapped = peft.get_peft_model(trunk.model, settings)

    def merge() -> None:
        trunk.model = wrapped.merge_and_unload()

    return merge


def _row_loss(
    trunk: Trunk, template: ChatTemplate, answers: Sequence[Answer], row: PreferenceRow, reward: Reward
) -> Tensor:
    texts = [answers[j] for j in (*row.chosen, *row.rejected)]
    ids = [template.encode(text.prompt, text.response).input_ids for text in texts]
    batch = pad_batch(ids, template.pad_id, device=trunk.device)
    states = trunk(batch.input_ids, batch.attention_mask)
    rewards = reward(pool_states(states, batch, template.end_of_turn_id).float())
    chosen, rejected = rewards[: len(row.chosen)], rewards[len(row.chosen) :]
    return nn.functional.softplus(rejected[None, :] - chosen[:, None]).mean()


def _step(optimiser: torch.optim.Optimizer, loss: Any, parameters: Sequence[nn.Parameter]) -> float:
    value = float(loss.detach())
    if not np.isfinite(value):
        raise TrainingError(f"the tuning loss is {value}", hint="lower the learning rate")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad()
    return value


def _row_weights(rows: Sequence[PreferenceRow]) -> NDArray[np.float64]:
    """[R], mean 1: rows of one prompt share its weight."""
    _, position, counts = np.unique([row.prompt for row in rows], return_inverse=True, return_counts=True)
    weights = 1.0 / counts[position]
    return np.asarray(weights * len(rows) / weights.sum(), dtype=np.float64)
