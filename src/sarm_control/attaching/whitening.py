"""Training a dictionary where all directions of the state vary alike.

    y = A^-1 x        A = a U (E + f)^(p/2) U^T,  where U E U^T is the covariance of x

A plain autoencoder spends its latents on the few directions that vary most. In `y` these count no more than
others do: `p` = 1 makes all alike, 0 none. The floor `f` keeps directions that hardly vary, and are noise in
few states, from being blown up. `a` gives `y` the mean square 1 of `x`, so that a learning rate means the
same.

A dictionary of `y` is one of `x` as well: `W A^-1` encodes, `A d_i` are the directions. So the matrix is
folded into the weights, and nothing behind the training knows of it.

Shapes: `N` states, `D` hidden size, `L` latents.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sarm_control.reward_model import AttachedAutoencoder

_FLOOR = 0.01
"""Of the mean variance of a direction: what is added to each before its root is taken."""


class Whitening(NamedTuple):
    """Both ways of the change of coordinates: `onto` [D, D] is `A^-1`, `back` [D, D] is `A`; float32."""

    onto: Tensor
    back: Tensor

    def fold(self, autoencoder: AttachedAutoencoder) -> None:
        """Makes a dictionary of `y` one of `x`, in place: the same latents of the same states."""
        with torch.no_grad():
            autoencoder.pre_bias.copy_(self.back @ autoencoder.pre_bias)
            # both matrices are symmetric
            autoencoder.encoder.weight.copy_(autoencoder.encoder.weight @ self.onto)
            autoencoder.decoder.weight.copy_(self.back @ autoencoder.decoder.weight)


def whitening_of(normalised: Tensor, power: float) -> Whitening:
    """The whitening of states.

    Args:
        normalised: [N, D] states less their mean over one scale, N >= 1.
        power: `p`, in [0, 1].
    """
    wide = normalised.double()
    covariance = wide.T @ wide / len(wide)
    variances, directions = torch.linalg.eigh(covariance)
    # rounding can leave a variance a little below 0
    variances = variances.clamp(min=0)
    roots = (variances + _FLOOR * variances.mean()).pow(power / 2)
    # of y, whose directions have the variances over the squared roots
    square = (variances / roots.square()).mean() / variances.mean()
    roots = roots * square.sqrt()
    onto, back = ((directions * diagonal) @ directions.T for diagonal in (1 / roots, roots))
    return Whitening(onto.float(), back.float())
