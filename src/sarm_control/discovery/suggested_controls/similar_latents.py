"""Groups of harming latents that fire on the same answers, and so reward the same behaviour.

Similarity is phi, the correlation of firing between two latents over answers: 0 when they fire independently,
whatever their rates, and 1 when they always fire together.

Shapes: `N` answers, `C` latents.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.5
"""Latents with at least this mean phi are similar: they fire together and share at most two controls."""
KIN = 0.15
"""Groups of similar latents with at least this mean phi are kin: they reward one behaviour and share one
deterrent."""


class LatentGroups(NamedTuple):
    """Groups of latents, as positions 0..C-1; each latent is in one group.

    Args:
        similar: the groups, in the order of their first latents.
        kin: for each group, the number of the wider group to which it belongs.
    """

    similar: tuple[tuple[int, ...], ...]
    kin: tuple[int, ...]


def group_similar(fires: NDArray[np.bool_]) -> LatentGroups:
    """Groups of latents by average linkage on `1 - phi`, cut at `SIMILAR` and at `KIN`.

    Both cuts are of one tree, so similar latents are always kin.

    Args:
        fires: [N, C] whether each latent fires on each answer.
    """
    count = fires.shape[1]
    if count < 2:
        # scipy's linkage wants at least two
        return LatentGroups(((0,),) * count, (0,) * count)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    # rounded, so that equal similarities tie on every machine
    distance = np.round(1.0 - phi(fires), 9)
    tree = linkage(squareform(distance, checks=False), method="average")
    near, far = (fcluster(tree, 1.0 - least, criterion="distance") for least in (SIMILAR, KIN))
    numbers = dict.fromkeys(near.tolist())
    similar = tuple(tuple(np.flatnonzero(near == number).tolist()) for number in numbers)
    order = {number: place for place, number in enumerate(dict.fromkeys(far.tolist()))}
    return LatentGroups(similar, tuple(order[int(far[group[0]])] for group in similar))


def phi(fires: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[C, C] correlation of firing, 1 on the diagonal; 0 with a latent that always or never fires."""
    centred = fires - fires.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    varies = norm > 0
    unit = np.where(varies, centred / np.where(varies, norm, 1.0), 0.0)
    correlation = unit.T @ unit
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)
