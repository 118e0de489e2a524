"""From states to a dictionary and the report of its fit.

Shapes: `N` answers, `S` other states, `D` hidden size, `L` latents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.attaching.contributions import contributions, moments
from sarm_control.attaching.explained import Explained, explained, pca_reconstructed, reconstructed
from sarm_control.attaching.report import FitReport
from sarm_control.attaching.stability import Stability, stability
from sarm_control.attaching.training import DictionaryConfig, TrainedDictionary, train_dictionary
from sarm_control.build import PreferenceRow, Sparsity
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.errors import DataError
from sarm_control.reward_model import AttachedAutoencoder, FloatArray, StateHead

PCA, PLAIN = "pca", "mean_squared_error"
WHITENED, NOT_WHITENED = "whitened", "not_whitened"
"""Names of what stands beside a dictionary, with those of `Sparsity`: principal components of equal k, the
plain squared error, and the other kind of states."""
HALF = 0.5
"""The whitening of the one that stands beside a dictionary of states as they are: of a whole one much of the
state is missed."""


@dataclass(frozen=True)
class StateSet:
    """States of answers that figures are of, and the preferences among them.

    Args:
        states: [N, D] at the position the reward is read at.
        rows: preferences; positions are those of `states`.
    """

    states: Tensor
    rows: tuple[PreferenceRow, ...] = ()


@dataclass(frozen=True)
class FitData:
    """What a dictionary is fitted on and measured on.

    Args:
        states: [N, D] at the position the reward is read at.
        held_out: [N] true for the answers that nothing is fitted on: all answers of some prompts.
        rows: preferences over the N answers; those of held-out prompts are measured on.
        others: [S, D] states at other positions; None for none.
        others_answer: [S] the answer each belongs to.
        evaluation: other sets, by name, for figures alone.
    """

    states: Tensor
    held_out: NDArray[np.bool_]
    rows: tuple[PreferenceRow, ...] = ()
    others: Tensor | None = None
    others_answer: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    evaluation: Mapping[str, StateSet] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses flags of another length, and a split that leaves one side empty."""
        if len(self.held_out) != len(self.states):
            raise DataError(f"{len(self.held_out)} held-out flags were given for {len(self.states)} states")
        if self.held_out.all() or not self.held_out.any():
            raise DataError(
                "some answers have to be held out and some fitted on",
                hint="hold out the answers of some prompts",
            )

    @property
    def fitted_states(self) -> Tensor:
        """States that may be fitted on."""
        return self.states[torch.from_numpy(~self.held_out)]

    @property
    def fitted_others(self) -> Tensor | None:
        """Other states of answers that may be fitted on."""
        if self.others is None:
            return None
        # sentence ends inside a held-out answer are held out with it: their states have read the same text
        return self.others[torch.from_numpy(~self.held_out[self.others_answer])]

    @property
    def measured(self) -> StateSet:
        """The held-out answers, and the preferences among them."""
        # where each held-out answer stands among the held-out ones
        number = np.cumsum(self.held_out) - 1
        rows = tuple(
            replace(
                row,
                chosen=tuple(int(number[j]) for j in row.chosen),
                rejected=tuple(int(number[j]) for j in row.rejected),
            )
            for row in self.rows
            if row.chosen and row.rejected and self.held_out[[*row.chosen, *row.rejected]].all()
        )
        return StateSet(self.states[torch.from_numpy(self.held_out)], rows)


@dataclass(frozen=True)
class Fitted:
    """A dictionary and the report of its fit."""

    autoencoder: AttachedAutoencoder
    report: FitReport


def fit_dictionary(
    data: FitData,
    head: StateHead,
    config: DictionaryConfig,
    *,
    compare: bool = False,
    seeds: int = 1,
    device: torch.device | str = "cpu",
    progress: ProgressFactory = no_progress,
) -> Fitted:
    """Trains a dictionary on the states that are not held out, and measures it on those that are.

    Args:
        data: states, split by prompt.
        head: the reward model's own.
        config: sizes and schedule.
        compare: also train one on the plain squared error, one with each other sparsity, and one of half
            whitened states (of states as they are, if `config` has a whitening), for the table.
        seeds: 2 or more train others, from the seeds that follow, to see whether latents are found again.
        device: where to train.
        progress: counts steps.

    Raises:
        ModelError, TrainingError: see `train_dictionary`.
    """

    def train(how: DictionaryConfig) -> TrainedDictionary:
        return train_dictionary(
            data.fitted_states, head, how, others=data.fitted_others, device=device, progress=progress
        )

    trained = train(config)
    tried = {}
    if compare:
        # same states, seed and schedule, so that each differs by one thing alone
        tried[PLAIN] = train(replace(config, reward_weight=0.0)).autoencoder
        others = [one for one in get_args(Sparsity) if one != config.sparsity]
        tried |= {one: train(replace(config, sparsity=one)).autoencoder for one in others}
        name, power = (NOT_WHITENED, 0.0) if config.whitening else (WHITENED, HALF)
        tried[name] = train(replace(config, whitening=power)).autoencoder
    report = measure_fit(trained.autoencoder, head, data, tried=tried)
    first = config.autoencoder.seed
    found: list[Stability] = []
    for seed in range(first + 1, first + seeds):
        other = train(replace(config, autoencoder=replace(config.autoencoder, seed=seed))).autoencoder
        held = data.measured
        found.append(stability(trained.autoencoder, other, head, held.states, held.rows, seeds=(first, seed)))
    curve = tuple((point.step, point.mean_squared_error) for point in trained.curve)
    return Fitted(trained.autoencoder, replace(report, stability=tuple(found), curve=curve))


def measure_fit(
    autoencoder: AttachedAutoencoder,
    head: StateHead,
    data: FitData,
    *,
    tried: Mapping[str, AttachedAutoencoder] | None = None,
) -> FitReport:
    """The report of a dictionary, of whatever origin, on the held-out answers and the other sets.

    Args:
        autoencoder: of the states that `head` reads.
        head: the reward model's own.
        data: the held-out answers are measured on; principal components are those of the others.
        tried: other dictionaries to stand beside it, by name.
    """
    # a dictionary of states before the norm takes both halves; the head reads the first
    width = len(head.weight)
    fitted = data.fitted_states[:, :width].float().numpy()
    sets = {"": data.measured, **data.evaluation}
    fired = moments(autoencoder, data.measured.states).fired.sum() / len(data.measured.states)
    # what fires on average is the k that principal components get: not every dictionary has a k of its own
    kept = min(max(1, round(float(fired))), width)
    found: dict[str, dict[str, Explained]] = {}
    for name, one in sets.items():
        states: FloatArray = one.states[:, :width].float().numpy()
        rebuilt = {"": reconstructed(autoencoder, one.states), PCA: pca_reconstructed(fitted, states, kept)}
        rebuilt |= {how: reconstructed(other, one.states) for how, other in (tried or {}).items()}
        found[name] = {how: explained(head, states, made, one.rows) for how, made in rebuilt.items()}
    held_out = data.measured.states
    others = {name: measured[""] for name, measured in found.items() if name}
    return FitReport(
        held_out=found[""][""],
        evaluation=others,
        contributions=contributions(autoencoder, head, held_out),
        tried={how: contributions(other, head, held_out) for how, other in (tried or {}).items()},
        baselines={
            how: {name: measured[how] for name, measured in found.items()} for how in found[""] if how
        },
        k=kept,
        scale=float(autoencoder.scale),
        constant=autoencoder.latent_weights(head).constant,
    )
