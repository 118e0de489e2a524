"""Edits inside the model: a check of the algebra of `control.edit_delta` that shares no code with it.

The edits act on dense tensors between autoencoder and head, in a second forward pass from the text.

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
    """An autoencoder that returns edited latents, with the weights of another one.

    Args:
        inner: the autoencoder whose latents are edited; its tensors are shared.
        edits: at most one per latent.
    """

    def __init__(self, inner: Autoencoder, edits: Sequence[Edit]) -> None:
        hidden, latents = inner.encoder.in_features, inner.encoder.out_features
        # on the meta device no memory is allocated for weights that are replaced at once
        with torch.device("meta"):
            super().__init__(hidden, latents, inner.k, use_topk=inner.use_topk)
        own = self.state_dict()
        self.load_state_dict(
            {key: value for key, value in inner.state_dict().items() if key in own}, assign=True
        )
        # which latents are active is the inner one's to say: there are more ways than TopK
        self._encode = inner.encode
        self.edits = tuple(edits)

    def encode(self, states: Tensor) -> TopK:
        """The kept latents of [B, D] trunk states after the edits: K + E of them, or all L."""
        kept = self._encode(states)
        latents = self.encoder.out_features
        z = torch.zeros(len(states), latents, device=kept.values.device).scatter_(
            1, kept.indices, kept.values
        )
        for edit in self.edits:
            z[:, edit.latent] = _edited(z[:, edit.latent], edit)
        # at most K latents were nonzero and E were edited, so all beyond the K + E largest magnitudes are 0
        count = min(latents, kept.indices.shape[1] + len(self.edits))
        indices = z.abs().topk(count, dim=-1).indices.sort(dim=-1).values
        return TopK(indices, z.gather(-1, indices))


def _edited(z: Tensor, edit: Edit) -> Tensor:
    if edit.set is not None:
        return torch.full_like(z, edit.set)
    moved = z * (1.0 if edit.scale is None else edit.scale) + (edit.add or 0.0)
    return moved.clamp(edit.min, edit.max) if (edit.min, edit.max) != (None, None) else moved


def edited_model(rm: RewardModel, edits: Sequence[Edit]) -> RewardModel:
    """The same trunk and head with an autoencoder that returns edited latents; no weights are copied."""
    return rm.with_autoencoder(EditedAutoencoder(rm.autoencoder, edits))


def rescored_delta(
    rm: RewardModel,
    data: ScoredRows,
    edits: Sequence[Edit],
    *,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> Floats:
    """[N] change of the reward when the text is scored again with the edits inside the model.

    Rewards are summed in float64 on both sides, so that only the rounding of the latents remains.

    Args:
        rm: the model that scored `data`.
        data: rows and their scores without the edits.
        edits: at most one per latent.
        batch_tokens: as in the first pass, because other batches round differently.
        progress: see `sarm_control.console.progress`.

    Raises:
        ModelError: the head of `rm` is not the one that scored `data`.
    """
    if rm.fingerprint != data.scored.fingerprint:
        raise ModelError(
            f"the answers were scored with head {data.scored.fingerprint}, this model has {rm.fingerprint}",
            hint="name the model that made the latents with --model",
        )
    again = score_rows(edited_model(rm, edits), data.rows, batch_tokens=batch_tokens, progress=progress)
    weight = rm.head.weight.astype(np.float64)
    sums = [
        np.bincount(
            latents.row_ids(), weights=latents.values * weight[latents.indices], minlength=len(latents)
        )
        for latents in (again.latents, data.scored.latents)
    ]
    return np.asarray(sums[0] - sums[1])
