"""Chosen latents before TopK: how high they were, and how many stood above them.

Shapes: `N` answers, `D` hidden size, `L` latents, `C` chosen latents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.sparse import FloatArray


class PreTopK(NamedTuple):
    """Chosen latents of N answers before TopK.

    Args:
        values: [N, C] float32 pre-activations `a`.
        ranks: [N, C] int64 place among all L, 1 for the largest; TopK keeps the first k.
    """

    values: FloatArray
    ranks: NDArray[np.int64]


@torch.inference_mode()
def pre_topk(
    autoencoder: Autoencoder, states: FloatArray, latents: Sequence[int], *, chunk: int = 256
) -> PreTopK:
    """Reads chosen latents off trunk states taken at the end of turn.

    Args:
        autoencoder: of the reward model.
        states: [N, D].
        latents: C of them, each in 0..L-1.
        chunk: answers at once, so that at most [chunk, L] pre-activations exist.
    """
    values, ranks = [], []
    device, wanted = autoencoder.pre_bias.device, list(latents)
    for part in torch.from_numpy(states).split(chunk):
        activations = autoencoder.pre_activations(part.to(device))
        chosen = activations[:, wanted]
        # column by column: all at once would be [chunk, L, C]
        above = [(activations > column[:, None]).sum(dim=1) for column in chosen.T]
        values.append(chosen.float().cpu().numpy())
        ranks.append(torch.stack(above, dim=1).cpu().numpy() + 1 if above else np.zeros(chosen.shape, int))
    return PreTopK(np.concatenate(values), np.concatenate(ranks).astype(np.int64))
