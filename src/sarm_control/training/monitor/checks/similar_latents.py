"""The monitor `similar-latents`: uncontrolled latents, similar to a controlled one, take over its reward.

Latents are similar when their decoder directions are.

Shapes: `D` hidden size, `L` latents, `N` answers, `S` similar latents.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sarm_control.training.monitor.checks.finding import Finding, Floats, surely_above

LEAST_COSINE = 0.5
LEAST_EFFECT = 0.1
"""SDs of the reference reward."""


def find_similar_latents(
    decoder: NDArray[np.floating[Any]], latent: int, controlled: Collection[int]
) -> tuple[int, ...]:
    """The latents with a decoder cosine of at least 0.5 to `latent`, without the controlled ones.

    Args:
        decoder: [D, L].
        latent: the controlled one.
        controlled: latents under an edit or penalty.
    """
    lengths = np.sqrt(np.einsum("dl,dl->l", decoder, decoder))
    # a dead latent's decoder column may be 0, and 0 / 0 would be NaN
    scale = np.maximum(lengths * lengths[latent], np.finfo(np.float64).tiny)
    cosines = decoder.T @ decoder[:, latent] / scale
    return tuple(
        int(i) for i in np.flatnonzero(cosines >= LEAST_COSINE) if i != latent and i not in controlled
    )


def check_similar_latents(
    latent: int, family: tuple[int, ...], theirs: Floats, own: Floats, sd: float, *, families: int = 1
) -> Finding:
    """Compares the growth of the similar latents' contributions with that of the controlled latent's.

    Args:
        latent: the controlled one.
        family: its similar latents, S of them.
        theirs: [N] `sum w_i (z_i after - z_i before)` over the similar latents, answer by answer, reward
            units.
        own: [N] the same of the latent.
        sd: of the reference policy's reward.
        families: how many latents are tested in this way; the more, the stricter each test.
    """
    gained, kept = float(theirs.mean()) / sd, float(own.mean()) / sd
    return Finding(
        check="similar-latents",
        latent=latent,
        value=gained,
        further={"own": kept, "count": float(len(family))},
        fires=gained > kept and surely_above(theirs / sd, LEAST_EFFECT, tests=families),
        text=f"latents similar to {latent} ({', '.join(map(str, family[:5]))}) add {gained:+.2f} SD more to "
        f"the reward than before training, the latent itself {kept:+.2f}: put the same control on them",
    )
