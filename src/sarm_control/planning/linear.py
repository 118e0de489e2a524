"""Numbers of a deep model from those of a shallow one: a layer more adds what the layer before added.

Sizes are counted with one layer and with two of the real width, so that a plan of 80 layers takes no longer
than one of two.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

Counts: TypeAlias = dict[str, float]
"""Named numbers, such as bytes or seconds."""


def at_depth(
    depths: Sequence[int], measure: Callable[..., Counts], passing: Collection[str] = (), *, times: int = 1
) -> Counts:
    """What `measure(*depths)` would give, from its values for one layer and two.

    Args:
        depths: layers of each model that is measured, at least 1.
        measure: takes as many depths; its numbers grow by the same amount with every layer of a model.
        passing: names of those that do not: what a layer needs only while it is computed.
        times: that everything is measured, in turn; the least of each number counts. For seconds, which can
            only be too many. A deep model multiplies the difference of two timings, and a processor's pace
            may change between one and the other.
    """
    shallow = tuple([1] * len(depths))
    deeper = {i: (*shallow[:i], 2, *shallow[i + 1 :]) for i, depth in enumerate(depths) if depth > 1}
    measured: dict[tuple[int, ...], Counts] = {}
    for _ in range(times):
        for layers in (shallow, *deeper.values()):
            now = measure(*layers)
            before = measured.get(layers, now)
            measured[layers] = {name: min(now[name], before[name]) for name in now}
    one = measured[shallow]
    found = dict(one)
    for i, layers in deeper.items():
        two = measured[layers]
        for name in found:
            if name in passing:
                found[name] = max(found[name], two[name])
            else:
                found[name] += (two[name] - one[name]) * (depths[i] - 1)
    return found
