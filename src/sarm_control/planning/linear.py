"""Numbers of a deep model from those of a shallow one: a layer more adds what the layer before added.

Sizes are counted with one layer and with two of the real width, so that a plan of 80 layers takes no longer
than one of two.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

Counts: TypeAlias = dict[str, float]
"""Named numbers, such as bytes or seconds."""


def at_depth(depths: Sequence[int], measure: Callable[..., Counts], passing: Collection[str] = ()) -> Counts:
    """What `measure(*depths)` would give, from its values for one layer and two.

    Args:
        depths: layers of each model that is measured, at least 1.
        measure: takes as many depths; its numbers grow by the same amount with every layer of a model.
        passing: names of those that do not: what a layer needs only while it is computed.
    """
    shallow = [1] * len(depths)
    one = measure(*shallow)
    found = dict(one)
    for i, depth in enumerate(depths):
        if depth == 1:
            continue
        deeper = measure(*shallow[:i], 2, *shallow[i + 1 :])
        for name in found:
            if name in passing:
                found[name] = max(found[name], deeper[name])
            else:
                found[name] += (deeper[name] - one[name]) * (depth - 1)
    return found
