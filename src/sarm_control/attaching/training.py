"""Training a dictionary of the state that a reward model's head reads.

    loss = mean(e^2) + lambda (w_hat . e)^2        e = x - x_hat, of states less their mean over one scale

A plain autoencoder spends its latents on what varies most in the state. The head reads one direction of it,
which may vary little, so the second term pays for what is missed along that direction. `lambda` rises from
0: an autoencoder that sees the term at full weight from the start gives a latent to the direction itself.

Layers that were trained together with the head make its direction vary more than others do. The first term
then minds it already, and the second at full weight would make few latents carry the whole reward. What
counts is the share of the reward that is missed, `(w_hat . e)^2 / v`, where `v` is the variance along
`w_hat` in units of the mean direction's. Above `LOUD`, `lambda` is divided by `v / LOUD`, so that this share
weighs no more than it does there.

With `whitening` the first term is of `A^-1 e`, where all directions vary alike (see `whitening`); the
second stays that of `e`.

Where k is an average (`sparsity`), answers are scored one by one and there is no batch to take it over: a
latent is then active above one threshold, the one that keeps k latents on average of the states where the
reward is read.

Shapes: `N` answers, `S` other states, `D` hidden size, `L` latents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sarm_control.attaching.whitening import whitening_of
from sarm_control.build import AutoencoderConfig, DirectionTerm, LossPoint, Sparsity, train_topk
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.errors import ModelError, TrainingError
from sarm_control.reward_model import AttachedAutoencoder, ReadyMadeAutoencoder, StateHead

REWARD_WEIGHT = 3.0
"""`lambda` at the end of its ramp. Of 0, .03, .3 and 3 it left least of the reward of another benchmark in
the residual."""
LOUD = 1 / 3
"""Variance of the head's direction, in units of the mean one's, from which `lambda` falls. With
`REWARD_WEIGHT` the missed share of the reward then weighs as much as that of the state."""
RAMP = 0.5
_CHUNK = 512
_ROUNDING = 1e-9
"""Numbers whose variance is this share of their squares differ by rounding alone."""


@dataclass(frozen=True)
class DictionaryConfig:
    """How a dictionary is trained.

    Args:
        autoencoder: sizes, schedule and seed; its `end_of_turn_share` is that of the pooled states.
        reward_weight: `lambda` at the end of its ramp, at least 0, where the head's direction varies little
            (`weight_of_reward`); 0 is the plain squared error.
        ramp: share of the steps over which it rises from 0, in [0, 1].
        sparsity: which latents are kept.
        whitening: how far the directions of the state are made to vary alike, in [0, 1]; 0 leaves them.
    """

    autoencoder: AutoencoderConfig
    reward_weight: float = REWARD_WEIGHT
    ramp: float = RAMP
    sparsity: Sparsity = "topk"
    whitening: float = 0.0


@dataclass(frozen=True)
class TrainedDictionary:
    """The dictionary and how its training went."""

    autoencoder: AttachedAutoencoder
    curve: tuple[LossPoint, ...]


def train_dictionary(
    states: Tensor,
    head: StateHead,
    config: DictionaryConfig,
    *,
    others: Tensor | None = None,
    device: torch.device | str = "cpu",
    progress: ProgressFactory = no_progress,
) -> TrainedDictionary:
    """Trains on states behind the final norm; `Scored.states` of a classifier are such.

    Args:
        states: [N, D] float32, at the position that the reward is read at.
        head: the reward model's own.
        config: sizes and schedule.
        others: [S, D] states at other positions, such as sentence ends; default none.
        device: where to train.
        progress: counts steps.

    Raises:
        ModelError: states of another width than the head's, or states or rewards that do not vary.
        MissingExtraError: SAELens is not installed.
        TrainingError: a state or the loss is not finite.
    """
    states = states.float()
    others = states[:0] if others is None else others.float()
    _check(states, others, head)
    # of the states where the reward is read; the others only help to find directions
    mean = states.double().mean(dim=0)
    centred = states.double() - mean
    scale = float(centred.square().mean().sqrt())
    made = _empty(mean.float(), scale, config)
    weight = torch.from_numpy(head.weight).float()
    # of length 1, so that `lambda` means the same for a head of any size
    direction = weight / weight.norm()
    pools = [made.normalised(states), made.normalised(others)]
    whitening = whitening_of(pools[0], config.whitening) if config.whitening else None
    if whitening is not None:
        pools = [pool @ whitening.onto for pool in pools]
        # what is missed of x is `back` times what is missed of y
        direction = whitening.back @ direction
    reward_weight = weight_of_reward(centred, head, config.reward_weight)
    term = DirectionTerm(direction.to(device), reward_weight, config.ramp)
    trained = train_topk(
        pools,
        config.autoencoder,
        term=term if config.reward_weight else None,
        sparsity=config.sparsity,
        device=device,
        progress=progress,
    )
    found = {key: value.detach().cpu() for key, value in trained.autoencoder.state_dict().items()}
    # it was trained on normalised states, and knows neither mean nor scale
    made.load_state_dict({**made.encoding_state(), **found, "mean": made.mean, "scale": made.scale})
    if whitening is not None:
        whitening.fold(made)
    # before its threshold and every figure, which are of the numbers that are kept
    made.narrow_encoder(rounding=True)
    if isinstance(made, ReadyMadeAutoencoder):
        made.threshold.fill_(mean_threshold(made, states, config.autoencoder.k))
    return TrainedDictionary(made.requires_grad_(False).eval(), trained.curve)


def _empty(mean: Tensor, scale: float, config: DictionaryConfig) -> AttachedAutoencoder:
    latents, k = config.autoencoder.latents, config.autoencoder.k
    if config.sparsity == "topk":
        return AttachedAutoencoder(mean, scale, latents, k)
    return ReadyMadeAutoencoder(mean, scale, latents, 0, activation="jumprelu")


def weight_of_reward(states: Tensor, head: StateHead, weight: float) -> float:
    """`lambda` at the end of its ramp: `weight`, less where the head's direction is loud.

    Args:
        states: [N, D] that vary.
        head: the reward model's own.
        weight: for a direction whose variance is at most `LOUD`.
    """
    centred = states.double() - states.double().mean(dim=0)
    direction = torch.from_numpy(head.weight).double().to(centred.device)
    along = (centred @ (direction / direction.norm())).square().mean()
    return weight / max(1.0, float(along / centred.square().mean()) / LOUD)


@torch.no_grad()
def mean_threshold(autoencoder: AttachedAutoencoder, states: Tensor, k: int) -> float:
    """The pre-activation above which k latents of a state lie on average, at least 0.

    Args:
        autoencoder: of the states.
        states: [N, D].
        k: wanted.
    """
    # strictly above the next one are as many as are wanted, but for equal numbers
    wanted = len(states) * k + 1
    largest, least = torch.empty(0), 0.0
    for part in states.split(_CHUNK):
        found = autoencoder.pre_activations(part).flatten()
        largest = torch.cat([largest, found[found > least]])
        if len(largest) >= wanted:
            largest = largest.topk(wanted, sorted=False).values
            least = float(largest.min())
    return least


def _check(states: Tensor, others: Tensor, head: StateHead) -> None:
    if not len(states):
        raise TrainingError("no state to train the dictionary on")
    for found in (states, others):
        if found.shape[1] != len(head.weight):
            raise ModelError(
                f"the states have {found.shape[1]} numbers, the reward model's head {len(head.weight)}",
                hint="give the states that this head reads",
            )
        if not bool(torch.isfinite(found).all()):
            raise TrainingError("a state is not finite", hint="try --dtype float32")
    if not head.weight.any():
        raise ModelError("every weight of the reward model's head is 0: it pays every answer the same")
    rewards = torch.from_numpy(head.dots(states.numpy()))
    for what, found in (("states", states.double()), ("rewards", rewards)):
        if not varies(found):
            raise ModelError(
                f"the {what} of {len(states)} answers do not vary, so nothing can be learnt from them",
                hint="give answers that differ at the token where the reward is read (see --pooling)",
            )


def varies(numbers: Tensor) -> bool:
    """Whether [N, ...] numbers differ by more than rounding."""
    around = (numbers - numbers.mean(dim=0)).square().sum()
    return bool(around > _ROUNDING * numbers.square().sum())
