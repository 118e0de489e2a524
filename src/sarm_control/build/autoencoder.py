"""A sparse autoencoder in SARM's normalisation, trained with SAELens's trainer.

SAELens gets the normalised states x. Its model differs from a SARM's in two ways. It applies a ReLU after
TopK: that is removed before training. Its decoder rows have free norms, which scale the pre-activations
(`rescale_acts_by_decoder_norm`): they are folded into the encoder, exactly, after training.

A SARM keeps k latents of every state. Dictionaries may also be trained with k on the average of a batch
(BatchTopK, arXiv 2412.06410), and with nested groups, the first latents alone having to explain the state
too (Matryoshka, arXiv 2503.17547): see `Sparsity`.

Shapes: `N` states, `B` states of a step, `D` hidden size, `L` latents, `K` kept latents.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.errors import ConfigError, TrainingError
from sarm_control.extras import import_extra
from sarm_control.reward_model import Autoencoder, normalise, rounded_factors
from sarm_control.seeds import derive_seed, torch_generator

Sparsity: TypeAlias = Literal["topk", "batch-topk", "matryoshka"]
"""k latents of every state; k on average, of a batch together; the latter with nested groups of latents."""
_GROUPS = (16, 4, 1)
"""The nested groups are the first sixteenth of the latents, the first quarter, and all."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """How the autoencoder is trained.

    Args:
        latents: L, at least k.
        k: latents kept for each state, at least 1.
        steps: optimiser steps.
        batch: states of a step.
        learning_rate: of Adam; linear warm-up over the first 5 % of the steps, linear decay to 0
            over the last 40 %.
        end_of_turn_share: share of each batch drawn from end-of-turn states, the rest from
            sentence ends; 1 when there are none.
        dead_after: steps without firing after which SAELens's auxiliary loss revives a latent.
        seed: decides the initial weights and the order of the states.
    """

    latents: int
    k: int
    steps: int = 2000
    batch: int = 1024
    learning_rate: float = 1e-3
    end_of_turn_share: float = 0.5
    dead_after: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses sizes that cannot work."""
        if not 1 <= self.k <= self.latents:
            raise ConfigError(f"k is {self.k}, it must be in 1..{self.latents} (the latents)")
        if self.steps < 1 or self.batch < 1:
            raise ConfigError(f"steps ({self.steps}) and batch ({self.batch}) must be at least 1")


@dataclass(frozen=True)
class DirectionTerm:
    """A term of the loss for what is missed along one direction: `weight (u . e)^2`, beside `mean(e^2)`.

    Args:
        direction: [D] `u`.
        weight: at the end of the ramp, at least 0.
        ramp: share of the steps over which the weight rises from 0, in [0, 1].
    """

    direction: Tensor
    weight: float
    ramp: float = 0.5

    def __post_init__(self) -> None:
        """Refuses weights and ramps that cannot work."""
        if not (0 <= self.weight < math.inf and 0 <= self.ramp <= 1):
            raise ConfigError(
                f"a loss term of weight {self.weight} with a ramp of {self.ramp}: the weight must be at "
                "least 0, the ramp in 0..1"
            )


@dataclass(frozen=True)
class LossPoint:
    """One point of the loss curve: mean squared error of a step per state and dimension."""

    step: int
    mean_squared_error: float


@dataclass(frozen=True)
class TrainedAutoencoder:
    """The autoencoder and how its training went."""

    autoencoder: Autoencoder
    curve: tuple[LossPoint, ...]


class SignedTopK(nn.Module):
    """Keeps the k largest values in place without a ReLU, as SARM does; [B, L] to [B, L]."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Zeroes all but the k largest values of each row."""
        kept = x.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(x).scatter(-1, kept.indices, kept.values)


def train_autoencoder(
    end_of_turn: Tensor,
    sentences: Tensor,
    config: AutoencoderConfig,
    *,
    device: torch.device | str = "cpu",
    progress: ProgressFactory = no_progress,
) -> TrainedAutoencoder:
    """Trains on trunk states; they are normalised here.

    Args:
        end_of_turn: [N, D] raw states, N >= 1.
        sentences: [S, D] raw states, S may be 0.
        config: sizes and schedule.
        device: where to train.
        progress: counts steps.

    Raises:
        MissingExtraError: SAELens is not installed.
        TrainingError: no states, or the loss is not finite.
    """
    if not len(end_of_turn):
        raise TrainingError("no end-of-turn state to train the autoencoder on")
    # an empty pool is not normalised: PyTorch warns about the standard deviation of no rows
    pools = [normalise(pool.float()) if len(pool) else pool.float() for pool in (end_of_turn, sentences)]
    return train_topk(pools, config, device=device, progress=progress)


def train_topk(
    pools: Sequence[Tensor],
    config: AutoencoderConfig,
    *,
    term: DirectionTerm | None = None,
    sparsity: Sparsity = "topk",
    device: torch.device | str = "cpu",
    progress: ProgressFactory = no_progress,
) -> TrainedAutoencoder:
    """Trains on what is encoded, as it is.

    Args:
        pools: [N, D] normalised states at the ends of turns, N >= 1, and [S, D] others, S may be 0.
        config: sizes and schedule.
        term: a term of the loss beside the mean squared error.
        sparsity: which latents are kept. What comes back keeps k of every state in any case: where k was an
            average, take the latents above a threshold of your own.
        device: where to train.
        progress: counts steps.

    Raises:
        MissingExtraError: SAELens is not installed.
        TrainingError: the loss is not finite.
    """
    trainer = _trainer(pools[0], _batches(pools, config, device), config, device, term, sparsity)
    curve = _fit(trainer, config, progress)
    trainer.sae.fold_W_dec_norm()
    return TrainedAutoencoder(from_sae_lens(trainer.sae), curve)


def from_sae_lens(sae: Any) -> Autoencoder:
    """Our autoencoder from a SAELens TopK one whose decoder rows have unit norm.

    Latents are equal wherever the K largest pre-activations are positive; SAELens sets negative ones to 0,
    and a SARM keeps them.

    Raises:
        ConfigError: the decoder rows are not of unit norm, or the input bias is not the decoder's.
    """
    norms = sae.W_dec.detach().norm(dim=-1)
    # otherwise the pre-activations are scaled by norms that a SARM does not have
    if not torch.allclose(norms, torch.ones_like(norms), atol=1e-4):
        raise ConfigError("the SAELens decoder rows are not of unit norm", hint="call sae.fold_W_dec_norm()")
    # a SARM always subtracts it, so latents of an autoencoder that does not would be shifted by W_enc b_dec
    if not sae.cfg.apply_b_dec_to_input:
        raise ConfigError("the SAELens autoencoder does not subtract b_dec from its input")
    latents, hidden = sae.W_dec.shape
    ours = Autoencoder(hidden, latents, int(sae.cfg.k))
    with torch.no_grad():
        ours.pre_bias.copy_(sae.b_dec)
        ours.latent_bias.copy_(sae.b_enc)
        ours.encoder.weight.copy_(sae.W_enc.T)
        ours.decoder.weight.copy_(sae.W_dec.T)
    return ours


def _trainer(
    first: Tensor,
    batches: Iterator[Tensor],
    config: AutoencoderConfig,
    device: Any,
    term: DirectionTerm | None,
    sparsity: Sparsity,
) -> Any:
    sae_lens = import_extra("sae_lens", "build", needed="training an autoencoder needs sae_lens")
    kind, settings_of, more = _kind(sae_lens, sparsity, config.latents)
    if term is not None:
        kind = _with_term(kind, term, config.steps)
    sizes = {"d_in": first.shape[1], "d_sae": config.latents, "k": config.k}
    # SAELens draws from torch's global generator: forked, so that nobody else's numbers depend on a training
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(config.seed, "autoencoder weights"))
        sae = kind(settings_of(**sizes, device=str(device), dtype="float32", **more))
    if sparsity == "topk":
        sae.activation_fn = SignedTopK(config.k)
    # starting at the mean, the latents need not learn it
    sae.b_dec.data.copy_(first.mean(dim=0))
    settings = sae_lens.config.SAETrainerConfig(
        total_training_samples=config.steps * config.batch,
        train_batch_size_samples=config.batch,
        lr=config.learning_rate,
        lr_end=config.learning_rate,
        lr_warm_up_steps=config.steps // 20,
        lr_decay_steps=2 * config.steps // 5,
        dead_feature_window=config.dead_after,
        device=str(device),
    )
    return sae_lens.SAETrainer(cfg=settings, sae=sae, data_provider=batches)


def _kind(sae_lens: Any, sparsity: Sparsity, latents: int) -> tuple[Any, Any, dict[str, Any]]:
    """SAELens's class, its settings' class, and the settings that the others do not have."""
    if sparsity == "topk":
        return sae_lens.TopKTrainingSAE, sae_lens.TopKTrainingSAEConfig, {}
    # one latent has no group inside
    if sparsity == "batch-topk" or latents == 1:
        return sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig, {}
    widths = sorted({max(1, latents // part) for part in _GROUPS})
    return (
        sae_lens.MatryoshkaBatchTopKTrainingSAE,
        sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
        {"matryoshka_widths": widths},
    )


def _with_term(kind: Any, term: DirectionTerm, steps: int) -> Any:
    """An autoencoder of SAELens with one loss more, through the two hooks that it has for such losses."""
    from sae_lens.saes.sae import TrainCoefficientConfig

    class WithTerm(kind):  # type: ignore[misc]  # SAELens is loaded only here
        def get_coefficients(self) -> dict[str, Any]:
            # SAELens sums squares over dimensions, where the term stands beside their mean
            weight = term.weight * len(term.direction)
            return {"direction": TrainCoefficientConfig(weight, round(term.ramp * steps))}

        def calculate_aux_loss(self, step_input: Any, sae_out: Tensor, **others: Any) -> dict[str, Tensor]:
            losses: dict[str, Tensor] = super().calculate_aux_loss(
                step_input=step_input, sae_out=sae_out, **others
            )
            missed = (step_input.sae_in - sae_out) @ term.direction.to(sae_out)
            losses["direction_loss"] = step_input.coefficients["direction"] * missed.square().mean()
            return losses

    return WithTerm


def _fit(trainer: Any, config: AutoencoderConfig, progress: ProgressFactory) -> tuple[LossPoint, ...]:
    """Calls the trainer step by step, as SAELens's own runners do, to record the losses."""
    every = max(1, config.steps // 20)
    curve: list[LossPoint] = []
    # products take most of a step, and bfloat16 factors are precise enough for training
    with rounded_factors(), progress("Autoencoder", config.steps) as advance:
        for step in range(1, config.steps + 1):
            output = trainer.step(next(trainer.data_provider))
            trainer.n_training_steps += 1
            # some 20 times only: reading a loss waits for the device to finish what is queued
            if step % every == 0 or step in (1, config.steps):
                # SAELens sums squares over dimensions
                error = output.losses["mse_loss"].item() / trainer.sae.cfg.d_in
                if not math.isfinite(error):
                    raise TrainingError(f"the autoencoder's loss is {error} at step {step}")
                curve.append(LossPoint(step, error))
            advance(1, note=f"error {curve[-1].mean_squared_error:.3f}")
    return tuple(curve)


def _batches(pools: Sequence[Tensor], config: AutoencoderConfig, device: Any) -> Iterator[Tensor]:
    """Batches that mix both pools in a fixed proportion; each pool is used up in shuffled rounds."""
    # how many states of a batch are end-of-turn states
    first = config.batch if not len(pools[1]) else round(config.batch * config.end_of_turn_share)
    # a fixed proportion: drawn by chance, the few end-of-turn states would be lost among sentence ends
    counts = (first, config.batch - first)
    streams = [
        _rounds(len(pool), count, torch_generator(config.seed, "autoencoder order", number))
        for number, (pool, count) in enumerate(zip(pools, counts, strict=True))
        if count
    ]
    used = [pool for pool, count in zip(pools, counts, strict=True) if count]
    while True:
        yield torch.cat([pool[next(stream)] for pool, stream in zip(used, streams, strict=True)]).to(device)


def _rounds(size: int, count: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of `count` indices; every state is used once before any is used again."""
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < count:
            waiting = torch.cat([waiting, torch.randperm(size, generator=generator)])
        yield waiting[:count]
        waiting = waiting[count:]
