"""Edits inside the model: the autoencoder itself gives edited latents.

A check of the algebra of `control.edit_delta` that shares no code with it: the edits act on dense
tensors between autoencoder and head, during another forward pass from the text.

Shapes: `B` answers of a batch, `N` answers, `D` hidden size, `L` latents, `K` kept latents, `E` edits.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sarm_control.console import ProgressFactory, no_progress
from sarm_control.control import Edit
from sarm_control.errors import ModelError
from sarm_control.evaluation.answer_places import Floats
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import Autoencoder, RewardModel, TopK


class EditedAutoencoder(Autoencoder):
    """An autoencoder whose latents come out edited; its weights are those of another one.

    Args:
        inner: the autoencoder to edit; its tensors are shared.
        edits: at most one for a latent.
    """

    def __init__(self, inner: Autoencoder, edits: Sequence[Edit]) -> None:
        hidden, latents = inner.encoder.in_features, inner.encoder.out_features
        with torch.device("meta"):
            super().__init__(hidden, latents, inner.k, use_topk=inner.use_topk)
        self.load_state_dict(inner.state_dict(), assign=True)
        self.edits = tuple(edits)

    def encode(self, states: Tensor) -> TopK:
        """[B, D] trunk states to the kept latents after the edits: K + E of them, or all L."""
        kept = super().encode(states)
        latents = self.encoder.out_features
        z = torch.zeros(len(states), latents, device=kept.values.device).scatter_(
            1, kept.indices, kept.values
        )
        for edit in self.edits:
            z[:, edit.latent] = _edited(z[:, edit.latent], edit)
        # What is not among the largest K + E magnitudes is 0: at most K were, and E were moved.
        count = min(latents, kept.indices.shape[1] + len(self.edits))
        indices = z.abs().topk(count, dim=-1).indices.sort(dim=-1).values
        return TopK(indices, z.gather(-1, indices))


def _edited(z: Tensor, edit: Edit) -> Tensor:
    if edit.set is not None:
        return torch.full_like(z, edit.set)
    moved = z * (1.0 if edit.scale is None else edit.scale) + (edit.add or 0.0)
    return moved.clamp(edit.min, edit.max) if (edit.min, edit.max) != (None, None) else moved


def edited_model(rm: RewardModel, edits: Sequence[Edit]) -> RewardModel:
    """The same trunk and head behind an autoencoder whose latents come out edited; nothing is copied."""
    return RewardModel(rm.config, rm.trunk, EditedAutoencoder(rm.autoencoder, edits), rm.head, rm.template)


def rescored_delta(
    rm: RewardModel,
    data: ScoredRows,
    edits: Sequence[Edit],
    *,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> Floats:
    """[N] change of the reward found by scoring the text again with the edits inside the model.

    The float32 rewards are summed in float64 on both sides, so that what is left is the rounding of
    the latents.

    Args:
        rm: the model `data` was scored with.
        data: rows and their scores without the edits.
        edits: at most one for a latent.
        batch_tokens: as in the first pass; other batches round otherwise.
        progress: see `sarm_control.console.progress`.

    Raises:
        ModelError: `rm` has another head than the one that scored `data`.
    """
    if rm.fingerprint != data.scored.fingerprint:
        raise ModelError(
            f"the answers were scored with head {data.scored.fingerprint}, this model has {rm.fingerprint}",
            hint="name the model that made the latents with --model",
        )
    again = score_rows(edited_model(rm, edits), data.rows, batch_tokens=batch_tokens, progress=progress)
    weight = rm.head.weight.astype(np.float64)
    sums = [
        np.bincount(one.row_ids(), weights=one.values * weight[one.indices], minlength=len(one))
        for one in (again.latents, data.scored.latents)
    ]
    return np.asarray(sums[0] - sums[1])
