"""The arms of a trial: controls made from a discovery, each kind alone, and the same on latents of chance.

Shapes: `L` latents.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Controls, HumanKL
from sarm_control.discovery.discover import Discovery, ScoredRows
from sarm_control.discovery.doses import suggested_controls
from sarm_control.discovery.features import Feature
from sarm_control.discovery.prompts import group_by_prompt
from sarm_control.discovery.suggestion import material_latents, suggested
from sarm_control.errors import DataError
from sarm_control.seeds import numpy_generator

Floats = NDArray[np.float64]

BETA = "0.1sd"
"""Weight of the human-KL arm: of the reward's SD for a nat."""
TARGET_RATE = 0.05
MATERIAL = 0.01
"""Share of the mean margin below which a harming latent gets no control: the default of `sarm discover`."""
NEAREST = 4
"""A matched latent is drawn among this many nearest ones."""


def controlled(found: Discovery) -> tuple[Feature, ...]:
    """The harming latents that `sarm discover --write-controls` writes controls for."""
    return material_latents(found.lists["harms"], of_margin=MATERIAL)


def variants(harms: Sequence[Feature]) -> dict[str, Controls]:
    """Each kind of control alone, and together.

    - `controls`: what discovery suggests, edits and penalties.
    - `edits`, `penalties`: these two apart.
    - `target rates`: the penalties hold firing at 5 % instead of charging a fixed amount.
    - `human KL`: knows nothing of the discovery.
    - `together`: suggested edits and penalties, and the human KL.
    """
    both, human = suggested(harms), HumanKL(beta=BETA)
    targets = [replace(one, alpha=None, target_rate=TARGET_RATE) for one in both.penalties]
    return {
        "controls": both,
        "edits": Controls(edits=both.edits),
        "penalties": Controls(penalties=both.penalties),
        "target rates": Controls(penalties=targets),
        "human KL": Controls(human_kl=human),
        "together": replace(both, human_kl=human),
    }


def random_controls(harms: Sequence[Feature], pairs: ScoredRows, *, seed: int) -> Controls:
    """The same kinds of control on latents drawn by chance that fire as often and weigh as much.

    What a control does by merely changing the reward is the same; what it knows is gone. Doses are
    read from the pairs in the same way.

    Args:
        harms: the latents whose places are taken; none of them is drawn.
        pairs: scored pairs.
        seed: of the draw.

    Raises:
        DataError: there are fewer other active latents than harming ones.
    """
    latents = group_by_prompt(pairs.rows, pairs.scored).latents
    rate = np.asarray(((latents.chosen != 0).mean(axis=0) + (latents.rejected != 0).mean(axis=0)) / 2).ravel()
    size = np.abs(latents.head)
    drawn = matched(rate, size, [one.latent for one in harms], seed=seed)
    stand_ins = [
        replace(one, latent=other, controls=suggested_controls(latents, other, one.kind))
        for one, other in zip(harms, drawn, strict=True)
    ]
    return suggested(stand_ins)


def matched(rate: Floats, size: Floats, latents: Sequence[int], *, seed: int) -> list[int]:
    """For each latent another one of about the same firing rate and |w|, drawn without replacement.

    Args:
        rate: [L] share of answers with the latent active.
        size: [L] magnitude of the head weight.
        latents: those to be matched.
        seed: of the draw.

    Raises:
        DataError: there are not enough other latents that ever fire.
    """
    rng = numpy_generator(seed, "matched latents")
    place = _standardised(np.column_stack([rate, np.log(size + 1e-6)]), rate > 0)
    free = [i for i in np.flatnonzero(rate > 0).tolist() if i not in set(latents)]
    if len(free) < len(latents):
        raise DataError(f"{len(free)} other latents fire, {len(latents)} are to be matched")
    drawn: list[int] = []
    for latent in latents:
        distance = np.linalg.norm(place[free] - place[latent], axis=1)
        near = np.argsort(distance, kind="stable")[:NEAREST]
        drawn.append(free.pop(int(rng.choice(near))))
    return drawn


def _standardised(values: Floats, used: NDArray[np.bool_]) -> Floats:
    spread = values[used].std(axis=0)
    return np.asarray((values - values[used].mean(axis=0)) / np.where(spread > 0, spread, 1.0))
