"""How good an autoencoder and a head are, in the figures `sarm build` prints.

Shapes: `N` states, `D` hidden size, `L` latents, `P` prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.build.head.comparisons import PreferenceRow, score_prompts
from sarm_control.reward_model import Autoencoder, normalise
from sarm_control.statistics import Interval, share_interval, with_ends

_CHUNK = 512


@dataclass(frozen=True)
class HeadFigures:
    """A head on some prompts, each with a 95 % interval over prompts.

    Args:
        pair_accuracy: share of chosen-rejected pairs ordered right, averaged by prompt; chance 0.5.
        best_of: how often the best-scored answer is a chosen one; chance in `best_of_chance`.
        best_of_chance: what a random head would reach.
    """

    pair_accuracy: Interval
    best_of: Interval
    best_of_chance: float

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "pair_accuracy": self.pair_accuracy.as_json(),
            "best_of": self.best_of.as_json(),
            "best_of_chance": self.best_of_chance,
        }

    def line(self) -> str:
        """The same as a few words."""
        accuracy = self.pair_accuracy
        chance = "; its interval holds chance" if accuracy.low <= 0.5 <= accuracy.high else ""
        return (
            f"pair accuracy {with_ends(self.pair_accuracy, '.3f')}, "
            f"best of n {with_ends(self.best_of, '.3f')} "
            f"(chance 0.5 and {self.best_of_chance:.2f}; {accuracy.n} prompts){chance}"
        )


@torch.no_grad()
def explained_variance(autoencoder: Autoencoder, states: Tensor) -> float | None:
    """`1 - sum |x - x_hat|^2 / sum |x - mean(x)|^2` over raw states [N, D]; None when they do not vary."""
    states = states.to(autoencoder.pre_bias.device)
    x = normalise(states.float())
    missed = 0.0
    for part in torch.split(states, _CHUNK):
        rebuilt = autoencoder.decode(autoencoder.encode(part))
        # summed over parts, so that [N, L] codes are never held whole
        missed += float((normalise(part.float()) - rebuilt).square().sum())
    variation = float((x - x.mean(dim=0)).square().sum())
    # equal states differ from their mean only by rounding
    varies = variation > 1e-9 * float(x.square().sum())
    return 1.0 - missed / variation if varies else None


@torch.no_grad()
def firing_rates(autoencoder: Autoencoder, states: Tensor) -> NDArray[np.float64]:
    """[L]: the share of the raw states [N, D] on which each latent is among the kept."""
    counts = torch.zeros(autoencoder.latent_bias.shape[0])
    for part in torch.split(states, _CHUNK):
        kept = autoencoder.encode(part.to(autoencoder.pre_bias.device)).indices.flatten().cpu()
        counts += torch.bincount(kept, minlength=len(counts))
    return np.asarray((counts / len(states)).numpy(), dtype=np.float64)


def head_figures(scores: NDArray[np.floating[Any]], rows: Sequence[PreferenceRow]) -> HeadFigures:
    """Figures of answer scores [N] on the preference rows, one number per prompt.

    Raises:
        DataError: a score is not finite.
    """
    found = score_prompts(scores, rows)
    return HeadFigures(share_interval(found.pairs), share_interval(found.best_of), found.chance)
