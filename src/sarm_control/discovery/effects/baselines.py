"""Compares the tested effects with other ways to find harming latents, on prompts that none of them has seen.

Each way ranks latents on the selection prompts and names as many harming (or promoting) ones as the
tests select. The confirmation prompts show how much their removal changes the margin.

| way | calls a latent harming when |
|---|---|
| tested effect | its margin contribution is negative and significant |
| highest weight | w < 0, which mistakes protecting latents for harmful ones |
| SARM score s | it fires more on rejected answers, `s = (C - R) / (C + R + mean)` |
| difference in means | its mean z is larger on rejected answers |

`C` and `R` are firing rates on chosen and rejected answers, `mean` the mean of `C + R` over latents
(the score of arXiv 2508.08746).

Shapes: `P` prompts, `L` latents, `M` tested latents, `K` latents of a list.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.discovery.pairs.margins import (
    PairLatents,
    firing_rates,
    margin_contributions,
    mean_differences,
)
from sarm_control.errors import DataError
from sarm_control.statistics import SETS, AmongSets, Interval, among_matched_sets, mean_intervals

Index = NDArray[np.int64]
Floats = NDArray[np.float64]

TESTED = "tested effect"


class Competitor(NamedTuple):
    """The result of one way of choosing latents, on the confirmation prompts.

    Args:
        way: how the latents were chosen.
        latents: [K], the first choice first.
        gain: the change of the mean margin when all of them are removed, reward units. The removal of
            latents that harm raises it.
        right: share of them whose effect on the confirmation prompts has the sign that the way predicts.
        among: the place of the set's effect, in the direction it was chosen for, among matched random
            sets; None where none could be drawn.
    """

    way: str
    latents: tuple[int, ...]
    gain: Interval
    right: float
    among: AmongSets | None

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object."""
        return {
            "way": self.way,
            "latents": list(self.latents),
            "gain": self.gain.as_json(),
            "right": self.right,
            "among_matched_sets": None if self.among is None else self.among.as_json(),
        }


def compete(
    selection: PairLatents,
    confirmation: PairLatents,
    latents: Index,
    selected: NDArray[np.bool_],
    *,
    sign: int,
    sets: int = SETS,
    seed: int = 0,
) -> tuple[Competitor, ...]:
    """The latents of one sign by every way, as many as the tests selected; empty when they selected none.

    Args:
        selection: the prompts on which latents are chosen.
        confirmation: the prompts on which the choice is judged.
        latents: [M] tested latents, from which all ways choose.
        selected: [M] which of them are significant on the selection prompts.
        sign: -1 for latents that harm, +1 for those that promote.
        sets: the number of matched random sets for each way.
        seed: of the random sets and the intervals.
    """
    scores = _scores(selection, latents)
    count = int((selected & (sign * scores[TESTED] > 0)).sum())
    if not count:
        return ()
    contributions = margin_contributions(confirmation)
    effect = np.asarray(contributions.sum(axis=0)).ravel() / confirmation.prompts
    rates = firing_rates(selection)
    rate = np.zeros_like(rates.chosen)
    # latents that were not tested keep rate 0, so matched sets are drawn from tested latents only
    rate[latents] = (rates.chosen + rates.rejected)[latents] / 2
    # only the tests know significance; the other ways rank all tested latents
    chosen = {
        way: latents[_strongest(np.where(selected | (way != TESTED), sign * score, -np.inf), count)]
        for way, score in scores.items()
    }
    # where few latents were tested, a way may find none of this sign
    chosen = {way: own for way, own in chosen.items() if len(own)}
    removed = [-np.asarray(contributions[:, own].sum(axis=1)).ravel() for own in chosen.values()]
    gains = list(mean_intervals(np.column_stack(removed)))
    return tuple(
        Competitor(
            way,
            tuple(own.tolist()),
            gains[j],
            float((np.sign(effect[own]) == sign).mean()),
            _among(sign * effect, own, rate, np.abs(selection.head), sets, seed),
        )
        for j, (way, own) in enumerate(chosen.items())
    )


def _scores(pairs: PairLatents, latents: Index) -> dict[str, Floats]:
    """[M] scores by way; a negative score means "harms", and the magnitude ranks."""
    difference = mean_differences(pairs)[latents]
    rates = firing_rates(pairs)
    both = (rates.chosen + rates.rejected)[latents]
    gap = (rates.chosen - rates.rejected)[latents]
    return {
        TESTED: pairs.head[latents] * difference,
        "highest weight": pairs.head[latents],
        "SARM score s": gap / (both + both.mean()) if len(latents) else gap,
        "difference in means": difference,
    }


def _strongest(score: Floats, count: int) -> Index:
    """The positions of the `count` largest scores, largest first; scores of at most 0 are left out."""
    order = np.argsort(-score, kind="stable")[:count]
    return order[score[order] > 0]


def _among(
    towards: Floats, chosen: Index, rate: Floats, size: Floats, sets: int, seed: int
) -> AmongSets | None:
    """The place of a set's effect, in the direction it was chosen for, among matched random sets."""
    value = float(towards[chosen].sum())
    try:
        return among_matched_sets(value, towards, chosen, rate, size, sets=sets, seed=seed)
    # too few other latents to draw sets from: the table then has no such column, and the rest of it stands
    except DataError:
        return None
