"""The sparse head and its dense baseline, fitted and judged in the same way.

The dense head is linear in x, the whole normalised state, and shows what sparsity costs.

Shapes: `N` answers, `D` hidden size, `L` latents, `F` features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.build.head.comparisons import PreferenceRow, all_comparisons
from sarm_control.build.head.head import Features, Regularisation, choose_l2, choose_l2_on, fit_head
from sarm_control.build.head.quality import HeadFigures, head_figures
from sarm_control.reward_model import RewardModel, normalise


@dataclass(frozen=True)
class FittedHead:
    """A head that was fitted twice.

    Args:
        fitted: [F] float32, on the fitting prompts only; `held_out` judges this one.
        kept: [F] float32, on all prompts, with the same regularisation.
        regularisation: chosen by cross-validation on the fitting prompts.
        held_out: figures on the held-out prompts.
    """

    fitted: NDArray[np.float32]
    kept: NDArray[np.float32]
    regularisation: Regularisation
    held_out: HeadFigures


@dataclass(frozen=True)
class HeadSplit:
    """Which prompts a head may be fitted on.

    Args:
        held_out: [prompts] true where a prompt must not be fitted.
        folds: parts of the cross-validation on the others; the same ones whatever the build's seed.
    """

    held_out: NDArray[np.bool_]
    folds: int


@dataclass(frozen=True)
class Validation:
    """Preferences that choose the regularisation and nothing else.

    Args:
        states: [M, D] raw end-of-turn states.
        rows: preference rows over the M answers.
    """

    states: Tensor
    rows: Sequence[PreferenceRow]


@dataclass(frozen=True)
class FittedHeads:
    """The head on latents and the one on states."""

    sparse: FittedHead
    dense: FittedHead

    def dense_scores(self, states: Tensor) -> NDArray[np.float64]:
        """[N] rewards of the dense head for raw states [N, D]."""
        return dense_features(states) @ self.dense.kept.astype(np.float64)


def dense_features(states: Tensor) -> NDArray[np.float64]:
    """[N, D] float64 normalised states."""
    return np.asarray(normalise(states.float()).cpu().numpy(), dtype=np.float64)


def fit_heads(
    model: RewardModel,
    states: Tensor,
    rows: Sequence[PreferenceRow],
    split: HeadSplit,
    validation: Validation | None = None,
) -> FittedHeads:
    """Fits both heads on the prompts that are not held out.

    Args:
        model: its autoencoder gives the latents; its head is not used.
        states: [N, D] raw end-of-turn states.
        rows: preference rows over the N answers.
        split: which prompts may be fitted.
        validation: chooses the regularisation instead of cross-validation.

    Raises:
        TrainingError: too few prompts with preferences.
    """

    def sparse_features(states: Tensor) -> Features:
        return model.score_states(states).to_scipy().astype(np.float64)

    return FittedHeads(
        _fit(sparse_features, states, rows, split, validation),
        _fit(dense_features, states, rows, split, validation),
    )


def head_json(heads: FittedHeads) -> dict[str, Any]:
    """Figures of both heads as a JSON object."""
    return {name: _one_json(head) for name, head in (("sparse", heads.sparse), ("dense", heads.dense))}


def _one_json(head: FittedHead) -> dict[str, Any]:
    chosen = head.regularisation
    return {
        "held_out": head.held_out.as_json(),
        "l2": chosen.l2,
        "regularisation": [
            {"l2": l2, "loss": loss} for l2, loss in zip(chosen.grid, chosen.losses, strict=True)
        ],
        "nonzero_weights": int((head.kept != 0).sum()),
    }


def _fit(
    features_of: Callable[[Tensor], Features],
    states: Tensor,
    rows: Sequence[PreferenceRow],
    split: HeadSplit,
    validation: Validation | None,
) -> FittedHead:
    features = features_of(states)
    everything = all_comparisons(rows)
    fitting = everything.take(~split.held_out[everything.prompt])
    if validation is None:
        regularisation = choose_l2(features, fitting, folds=split.folds)
    else:
        others = features_of(validation.states), all_comparisons(validation.rows)
        regularisation = choose_l2_on(features, fitting, *others)
    fitted = fit_head(features, fitting, regularisation.l2)
    # started from the head fitted before, which is near; the minimum is unique, so this saves time alone
    kept = fit_head(features, everything, regularisation.l2, fitted)
    judged = [row for row in rows if split.held_out[row.prompt]]
    return FittedHead(
        fitted.astype(np.float32),
        kept.astype(np.float32),
        regularisation,
        head_figures(np.asarray(features @ fitted), judged),
    )
