"""Tuning the trunk on preferences, before the autoencoder or through it.

The loss is Bradley-Terry over every chosen-rejected pair of a row; each prompt has the same weight. Tuning
before the autoencoder uses a linear reward on the normalised state for each annotator, which is dropped
afterwards. Tuning after it uses the SARM's own reward with the autoencoder frozen (the paper's second stage).

Shapes: `B` answers of a micro-batch, `D` hidden size, `L` latents, `A` annotators, `R` rows.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sarm_control.build.head.comparisons import PreferenceRow
from sarm_control.build.states.microbatches import EncodedRows, MicroBatch
from sarm_control.build.states.texts import Conversation
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation import ChatTemplate
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.extras import import_extra
from sarm_control.reward_model import Autoencoder, Trunk, normalise, pool_states, rounded_factors
from sarm_control.seeds import derive_seed, numpy_generator

Reward = Callable[[Tensor, Tensor], Tensor]
"""Trunk states [B, D] and annotators [B] to rewards [B]."""

BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TuneConfig:
    """How the trunk is tuned.

    Args:
        epochs: passes over the preference rows, at least 1.
        mode: "lora" (adapters on every linear layer, merged in at the end) or "full" (every
            weight of the decoder layers).
        rows: preference rows of a step.
        learning_rate: of the trunk; None is 1e-4 for LoRA and 1e-5 for full. Both rates rise over the
            first 5 % of the updates and fall to 0 at the end, see `schedule`.
        head_learning_rate: of the head.
        rank: of the LoRA adapters.
        batch_tokens: answers times longest answer of a forward pass; rows are kept whole. It
            bounds the memory and changes results by no more than rounding.
        seed: decides the order of the rows and the adapters' initial weights.
    """

    epochs: int
    mode: Literal["lora", "full"] = "lora"
    rows: int = 8
    learning_rate: float | None = None
    head_learning_rate: float = 1e-3
    rank: int = 16
    batch_tokens: int = BATCH_TOKENS
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses settings that cannot work."""
        if self.epochs < 1:
            raise ConfigError(f"{self.epochs} epochs of tuning: at least 1 is needed")
        if self.mode not in ("lora", "full"):
            raise ConfigError(f"unknown way to tune: {self.mode}", hint="use lora or full")
        if self.rows < 1:
            raise ConfigError(f"{self.rows} rows in a step of tuning: at least 1 is needed")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"the learning rate of tuning is {self.learning_rate}, it must be above 0")

    @property
    def trunk_rate(self) -> float:
        """The trunk's learning rate."""
        return self.learning_rate or (1e-4 if self.mode == "lora" else 1e-5)


@dataclass(frozen=True)
class Tuned:
    """The losses of tuning, in nats; `log 2` is chance.

    Args:
        losses: the mean loss of each epoch.
        annotators: the mean loss of the last epoch over the rows of each annotator that has any.
    """

    losses: tuple[float, ...]
    annotators: dict[int, float] = field(default_factory=dict)


def tune_before(
    trunk: Trunk,
    template: ChatTemplate,
    answers: Sequence[Conversation],
    rows: Sequence[PreferenceRow],
    config: TuneConfig,
    *,
    progress: ProgressFactory = no_progress,
) -> Tuned:
    """Tunes the trunk in place under linear rewards on x, which are not kept.

    Every annotator has a reward of its own and all share the trunk, so that opposite tastes do not cancel:
    each can give x a direction of its own.

    Raises:
        MissingExtraError: LoRA without peft.
        TrainingError: no rows, or the loss is not finite.
    """
    count = 1 + max((row.annotator for row in rows), default=0)
    # From 0, so that the first update moves the heads alone: the trunk's gradient is proportional to them,
    # and random heads would push the states along random directions.
    heads = nn.Parameter(torch.zeros(count, trunk.hidden_size, device=trunk.device))

    def reward(states: Tensor, annotators: Tensor) -> Tensor:
        return (normalise(states) * heads[annotators]).sum(dim=-1)

    return _tune(trunk, template, answers, rows, config, heads, reward, progress)


def tune_after(
    trunk: Trunk,
    autoencoder: Autoencoder,
    weight: NDArray[np.float32],
    template: ChatTemplate,
    answers: Sequence[Conversation],
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
    # a copy: the optimiser would write into the weights of the model that was handed in
    head = nn.Parameter(torch.from_numpy(weight.copy()).to(trunk.device))

    def reward(states: Tensor, annotators: Tensor) -> Tensor:
        del annotators  # a SARM has one head
        # gradients flow through the values that are kept; which ones are kept is a choice without a gradient
        kept = autoencoder.encode(states)
        return (head[kept.indices] * kept.values).sum(dim=-1)

    tuned = _tune(trunk, template, answers, rows, config, head, reward, progress)
    return tuned, head.detach().cpu().numpy().astype(np.float32)


def _tune(
    trunk: Trunk,
    template: ChatTemplate,
    answers: Sequence[Conversation],
    rows: Sequence[PreferenceRow],
    config: TuneConfig,
    head: nn.Parameter,
    reward: Reward,
    progress: ProgressFactory,
) -> Tuned:
    if not rows:
        raise TrainingError("no preference row to tune on", hint="give --pairs")
    dtype = next(trunk.parameters()).dtype
    # bfloat16 weights lose updates that are smaller than 1/256 of the weight
    trunk.float()
    finish = _open(trunk, config)
    # the trunk stays in evaluation mode: under dropout other states would be tuned than are scored later
    parameters = [p for p in trunk.parameters() if p.requires_grad]
    groups = [
        {"params": parameters, "lr": config.trunk_rate},
        {"params": [head], "lr": config.head_learning_rate},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    updates = config.epochs * math.ceil(len(rows) / config.rows)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: schedule(done, updates))
    encoded = EncodedRows(template, answers, rows, trunk.device)
    # so that a prompt with many rows counts no more than one with a single row
    share = _row_weights(rows)
    epochs = []
    with progress("Tuning the trunk", config.epochs * len(rows)) as advance:
        for epoch in range(config.epochs):
            order = numpy_generator(config.seed, "tuning order", epoch).permutation(len(rows))
            losses = np.zeros(len(rows))
            done = 0
            for start in range(0, len(order), config.rows):
                step = order[start : start + config.rows]
                with rounded_factors(dtype == torch.bfloat16):
                    # gradients add up over the micro-batches, so their size does not change the step
                    for batch in encoded.micro_batches(step.tolist(), config.batch_tokens):
                        weights = share[batch.rows] / len(step)
                        losses[batch.rows] = _backward(trunk, template, batch, reward, weights)
                _step(optimiser, [*parameters, head])
                rates.step()
                done += len(step)
                seen = order[:done]
                advance(len(step), note=f"loss {share[seen] @ losses[seen] / done:.3f}")
            epochs.append(float(share @ losses / len(rows)))
    finish()
    trunk.requires_grad_(False)
    trunk.to(dtype)
    return Tuned(tuple(epochs), _by_annotator(rows, losses, share))


def schedule(done: int, updates: int) -> float:
    """The factor on the learning rates of an update: it rises from 0 over 5 %, then falls linearly to 0.

    At a constant rate the attributes that a small trunk learnt depended on the processor's rounding.

    Args:
        done: updates before this one.
        updates: of the whole tuning.
    """
    warm_up = max(1, updates // 20)
    return min((done + 1) / warm_up, (updates - done) / max(1, updates - warm_up))


def _open(trunk: Trunk, config: TuneConfig) -> Callable[[], None]:
    """Makes the trunk trainable; the function returned merges the adapters back."""
    if config.mode == "full":
        trunk.layers.requires_grad_(True)
        return lambda: None
    peft = import_extra("peft", "rl", needed="tuning a trunk with LoRA needs peft")
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "adapters"))
        settings = peft.LoraConfig(
            r=config.rank, lora_alpha=2 * config.rank, lora_dropout=0.0, target_modules="all-linear"
        )
        with warnings.catch_warnings():
            # peft reads an attribute of transformers by its deprecated name
            warnings.simplefilter("ignore", FutureWarning)
            # the adapters go into the trunk's own layers, so the trunk is called as before
            wrapped = peft.get_peft_model(trunk.model, settings)

    def merge() -> None:
        trunk.model = wrapped.merge_and_unload()

    return merge


def _backward(
    trunk: Trunk, template: ChatTemplate, batch: MicroBatch, reward: Reward, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Adds the gradient of `weights . losses`; returns the losses [R]."""
    states = trunk(batch.tokens.input_ids, batch.tokens.attention_mask)
    pooled = pool_states(states, batch.tokens, template.end_of_turn_id).float()
    losses = batch.losses(reward(pooled, batch.annotators))
    values = losses.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(values).all():
        raise TrainingError(f"the tuning loss is {values.sum()}", hint="lower the learning rate")
    (losses @ torch.from_numpy(weights).to(losses)).backward()
    return values


def _step(optimiser: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad()


def _row_weights(rows: Sequence[PreferenceRow]) -> NDArray[np.float64]:
    """[R] weights of mean 1; rows of one prompt share its weight."""
    _, position, counts = np.unique([row.prompt for row in rows], return_inverse=True, return_counts=True)
    weights = 1.0 / counts[position]
    return np.asarray(weights * len(rows) / weights.sum(), dtype=np.float64)


def _by_annotator(
    rows: Sequence[PreferenceRow], losses: NDArray[np.float64], share: NDArray[np.float64]
) -> dict[int, float]:
    annotators = np.array([row.annotator for row in rows])
    return {
        int(number): float(np.average(losses[annotators == number], weights=share[annotators == number]))
        for number in np.unique(annotators)
    }
