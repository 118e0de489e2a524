"""The arms of a trial: controls made from a discovery, and the same controls on latents drawn by chance.

An arm is one way to train. The random arm is a placebo: it shows how much a control does merely by changing
the reward.

Shapes: `L` latents, `C` called latents.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Controls
from sarm_control.discovery import Discovery, Feature, group_by_prompt, stand_in, suggested
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows
from sarm_control.seeds import numpy_generator

Floats = NDArray[np.float64]

MATERIAL = 0.01
"""Share of the mean margin below which a harming latent gets no control: the default of `sarm discover`."""
NEAREST = 4
"""A matched latent is drawn among this many nearest ones."""


class Match(NamedTuple):
    """Latents drawn by chance, and how similar they are to those they stand in for.

    Args:
        latents: [C] one for each called latent, in their order, none twice.
        pool: number of latents to draw from: all that fire and were not called.
        rate_distance: mean difference in firing rate, a share of answers.
        weight_distance: mean difference in |w|.
        other_sign: how many have a head weight of the other sign, since too few of the same were left.
    """

    latents: tuple[int, ...]
    pool: int
    rate_distance: float
    weight_distance: float
    other_sign: int


def controlled(found: Discovery) -> tuple[Feature, ...]:
    """The harming latents that `sarm discover --write-controls` chooses controls for, together."""
    harms = found.with_suggestions(of_margin=MATERIAL).lists["harms"]
    return tuple(harm for harm in harms if harm.controls or harm.carried_by)


def random_controls(harms: Sequence[Feature], pairs: ScoredRows, *, seed: int) -> Controls:
    """The same kinds of control on the latents of `random_match`, with the same amounts.

    Caps and thresholds are taken from the drawn latents, as they are from the harming ones. So the controls
    change the reward in the same way, but know nothing of what harms.

    Args:
        harms: the latents to be replaced; none of them is drawn.
        pairs: scored pairs.
        seed: of the draw.

    Raises:
        DataError: there are fewer other active latents than harming ones.
    """
    latents = group_by_prompt(pairs.rows, pairs.scored).latents
    drawn = random_match(harms, pairs, seed=seed).latents
    stand_ins = [
        replace(harm, latent=other, controls=tuple(stand_in(latents, other, own) for own in harm.controls))
        for harm, other in zip(harms, drawn, strict=True)
    ]
    return suggested(stand_ins)


def random_match(harms: Sequence[Feature], pairs: ScoredRows, *, seed: int) -> Match:
    """Draws the latents that stand in for the harming ones.

    Args:
        harms: the latents to be replaced; none of them is drawn.
        pairs: scored pairs.
        seed: of the draw.

    Raises:
        DataError: there are fewer other active latents than harming ones.
    """
    latents = group_by_prompt(pairs.rows, pairs.scored).latents
    rate = np.asarray(((latents.chosen != 0).mean(axis=0) + (latents.rejected != 0).mean(axis=0)) / 2).ravel()
    return matched(rate, latents.head, [harm.latent for harm in harms], seed=seed)


def matched(rate: Floats, weight: Floats, latents: Sequence[int], *, seed: int) -> Match:
    """Draws for each latent another one of its sign and of similar firing rate and |w|, none twice.

    The sign comes first: removing a latent of negative weight raises rewards, and removing one of positive
    weight lowers them. A latent of the other sign is drawn only when none of the same is left.

    Args:
        rate: [L] share of answers with the latent active.
        weight: [L] head weight.
        latents: [C] those to be matched.
        seed: of the draw.

    Raises:
        DataError: there are not enough other latents that ever fire.
    """
    rng = numpy_generator(seed, "matched latents")
    size, sign = np.abs(weight), np.sign(weight)
    # distances in firing rate and in log |w|, each in its SD over the latents that fire
    # a weight of 0 has no logarithm
    place = _standardised(np.column_stack([rate, np.log(size + 1e-6)]), rate > 0)
    pool = [i for i in np.flatnonzero(rate > 0).tolist() if i not in set(latents)]
    if len(pool) < len(latents):
        raise DataError(
            f"{len(pool)} other latents fire, {len(latents)} are to be matched",
            hint="control fewer latents, or use a reward model with more",
        )
    drawn: list[int] = []
    for latent in latents:
        free = [i for i in pool if i not in drawn]
        free = [i for i in free if sign[i] == sign[latent]] or free
        distance = np.linalg.norm(place[free] - place[latent], axis=1)
        # drawn among a few and not the nearest itself: every seed would have the same placebo
        near = np.argsort(distance, kind="stable")[:NEAREST]
        drawn.append(free[int(rng.choice(near))])
    wanted = np.asarray(latents, dtype=np.int64)
    apart = {name: np.abs(of[drawn] - of[wanted]) for name, of in (("rate", rate), ("size", size))}
    return Match(
        latents=tuple(drawn),
        pool=len(pool),
        rate_distance=float(apart["rate"].mean()) if drawn else 0.0,
        weight_distance=float(apart["size"].mean()) if drawn else 0.0,
        other_sign=int((sign[drawn] != sign[wanted]).sum()),
    )


def _standardised(values: Floats, used: NDArray[np.bool_]) -> Floats:
    spread = values[used].std(axis=0)
    return np.asarray((values - values[used].mean(axis=0)) / np.where(spread > 0, spread, 1.0))
