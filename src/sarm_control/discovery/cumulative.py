"""How many latents make a share of the margin: few, and it can be read; many, and no short list tells it.

Shapes: `P` prompts, `L` latents.
"""

from typing import Any, NamedTuple

import numpy as np

from sarm_control.discovery.margins import PairLatents, margin_contributions

SHARES = (0.5, 0.9)
_POINTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


class Cumulative(NamedTuple):
    """The share of the margin that the largest latents make, ordered on prompts not counted here.

    Args:
        needed: by share of the margin, the fewest latents that reach it.
        curve: (latents, share of the margin) at 1, 2, 5, 10, ... latents and at all of them.
    """

    needed: dict[float, int]
    curve: tuple[tuple[int, float], ...]

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; shares in percent name the counts."""
        needed = {f"{100 * share:.0f}": count for share, count in self.needed.items()}
        return {"latents_for_percent_of_margin": needed, "curve": [list(point) for point in self.curve]}


def cumulative_margin(selection: PairLatents, confirmation: PairLatents) -> Cumulative | None:
    """Adds up the margin latent by latent, the largest effects of the selection prompts first.

    Harming latents take away from the sum, so the curve may pass 100 % and come back.

    Args:
        selection: the prompts that put the latents in order.
        confirmation: the prompts whose margin is added up.

    Returns:
        None where the mean margin is 0 or below: there is nothing to make a share of.
    """
    order = np.argsort(-np.abs(_effects(selection)), kind="stable")
    effects = _effects(confirmation)
    total = effects.sum()
    if not total > 0:
        return None
    last = 1 + int(np.flatnonzero(effects[order])[-1])
    share = np.cumsum(effects[order]) / total
    points = [n for n in _POINTS if n < last]
    needed = {level: int(np.argmax(share >= level - 1e-12)) + 1 for level in SHARES}
    curve = tuple((n, float(share[n - 1])) for n in points)
    return Cumulative(needed, (*curve, (last, 1.0)))


def _effects(pairs: PairLatents) -> Any:
    return np.asarray(margin_contributions(pairs).sum(axis=0)).ravel() / pairs.prompts
