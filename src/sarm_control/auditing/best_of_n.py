"""Where the pressure goes: best-of-N as a policy that costs nothing to train.

Of M sampled answers to a prompt, N are drawn and the one with the highest reward is kept. As N grows the
winner is what the reward model would make of this policy. The winner's expected attribute is exact, without
simulation:

    E[a | N] = sum_i C(i - 1, N - 1) / C(M, N) a_(i)        a_(i) of the answer with the i-th smallest reward

and the winners' distribution is at most `ln N - (N - 1) / N` nats from the policy (Beirami et al. 2024,
arXiv 2401.01879), so curves of two rewards are compared at equal N.

Shapes: `P` prompts, `M` answers to one prompt, `A` attributes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.table import AttributeTable, Floats
from sarm_control.errors import DataError
from sarm_control.evaluation import win_shares
from sarm_control.notebooks import data_frame, ends_of
from sarm_control.statistics import (
    Interval,
    benjamini_hochberg,
    mean_interval,
    share_interval,
    sign_flip_test,
)

LEAST_PROMPTS = 10


def kl_bound(n: int) -> float:
    """Nats that best-of-n is at most from the policy: `ln n - (n - 1) / n`."""
    return math.log(n) - (n - 1) / n


class Rise(NamedTuple):
    """How one attribute of the winner changes from N = 1 to the largest N.

    Args:
        name: of the attribute.
        at_one: mean over prompts at N = 1.
        at_most: mean at the largest N.
        change: their paired difference over prompts.
        p: two-sided sign-flip p-value over prompts.
        q: the same after Benjamini and Hochberg over the attributes.
    """

    name: str
    at_one: float
    at_most: float
    change: Interval
    p: float
    q: float


@dataclass(frozen=True)
class Pressure:
    """What best-of-N selects for.

    Args:
        n: sizes of set, from 1.
        kl: [len(n)] nats, the bound of each.
        reward: the winner's expected reward for each, SDs.
        curves: attribute -> its expected value in the winner for each n (shares of answers that have it;
            for sizes, the size).
        rises: one for each attribute.
        prompts: prompts with at least the largest n answers; all curves are over these.
        left_out: prompts with fewer answers.
    """

    n: tuple[int, ...]
    kl: tuple[float, ...]
    reward: tuple[Interval, ...]
    curves: dict[str, tuple[Interval, ...]]
    rises: tuple[Rise, ...]
    prompts: int
    left_out: int

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each measure of the winner and each N.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(
            (
                {"measure": name, "n": n, "kl": kl, **ends_of(mean=one), "prompts": one.n}
                for name, curve in {"reward": self.reward, **self.curves}.items()
                for n, kl, one in zip(self.n, self.kl, curve, strict=True)
            ),
            "measure",
        )


def pressure(table: AttributeTable, *, n: Sequence[int] = (), rewards: Floats | None = None) -> Pressure:
    """Curves of reward and attributes under best-of-N.

    Args:
        table: several answers to each prompt, sampled from one policy.
        n: sizes of set; none are 1, 2, 4, ... up to what half of the prompts with several answers have.
        rewards: [N] rewards to choose by; the table's own where None.

    Raises:
        DataError: fewer than ten prompts have two answers, or fewer than ten as many as the largest n.
    """
    sizes, expected, kept = _expected_of(table, n, rewards)
    # the columns of `expected`: the reward first
    names = ["reward", *(one.name for one in table.attributes)]
    shares = {one.name for one in table.attributes if one.unit != "doubling"}
    intervals = {
        name: tuple(
            (share_interval if name in shares else mean_interval)(expected[:, at, place])
            for at in range(len(sizes))
        )
        for place, name in enumerate(names)
    }
    return Pressure(
        sizes,
        tuple(map(kl_bound, sizes)),
        intervals.pop("reward"),
        intervals,
        _rises(expected[:, :, 1:], names[1:]),
        len(kept),
        len(table.prompts) - len(kept),
    )


def expected_attributes(
    table: AttributeTable, *, n: Sequence[int] = (), rewards: Floats | None = None
) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """What the winner of best-of-N is expected to have, prompt by prompt.

    Args:
        table: several answers to each prompt.
        n: sizes of set; those that fewer than ten prompts have answers for are left out; none
            are 1, 2, 4, ...
        rewards: [N] rewards to choose by; the table's own where None.

    Returns:
        The sizes, and [P, len(sizes), A]: shares of answers that have an attribute, or the size of a size.

    Raises:
        DataError: fewer than ten prompts have two answers, or as many as the smallest n above 1.
    """
    counts = np.bincount(table.prompt, minlength=len(table.prompts))
    usable = [size for size in n if (counts >= size).sum() >= LEAST_PROMPTS]
    # with no usable size the sizes asked for are refused by name
    sizes, expected, _ = _expected_of(table, usable or n, rewards)
    # best of one was added as the start of curves; only who asked for it gets it
    own = [place for place, size in enumerate(sizes) if not n or size in n]
    return tuple(sizes[place] for place in own), expected[:, own, 1:]


def _expected_of(
    table: AttributeTable, n: Sequence[int], rewards: Floats | None
) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.int64]]:
    """Sizes, [P, sizes, 1 + A] of the reward and the attributes, and the prompts that are compared."""
    sizes = _sizes(table, n)
    by = table.rewards if rewards is None else rewards
    counts = np.bincount(table.prompt, minlength=len(table.prompts))
    # the same prompts at every size, so that a curve compares like with like
    kept = np.flatnonzero(counts >= sizes[-1])
    # the table's rewards also where others choose: what is drawn is what a choice costs by the reward as
    # it is
    measures = [table.rewards / (table.reward_sd or 1.0)] + [
        table.values[:, place] if one.unit == "doubling" else table.has[:, place].astype(np.float64)
        for place, one in enumerate(table.attributes)
    ]
    return sizes, _expected(table.prompt, kept, by, np.stack(measures, axis=1), sizes), kept


def _sizes(table: AttributeTable, n: Sequence[int]) -> tuple[int, ...]:
    counts = np.bincount(table.prompt, minlength=len(table.prompts))
    several = counts[counts > 1]
    if len(several) < LEAST_PROMPTS:
        raise DataError(
            f"{len(several)} prompts have two or more answers; pressure needs {LEAST_PROMPTS}",
            hint="sample several answers to each prompt, and give them as candidates",
        )
    if not n:
        return tuple(2**power for power in range(int(math.log2(np.median(several))) + 1))
    # best of one is the policy itself, which rises are counted from
    sizes = tuple(sorted({1, *n}))
    enough = int((counts >= sizes[-1]).sum())
    if enough < LEAST_PROMPTS:
        raise DataError(
            f"{enough} prompts have {sizes[-1]} answers; {LEAST_PROMPTS} are needed",
            hint=f"ask for best-of-{int(np.median(several))} or less, or sample more answers",
        )
    return sizes


def _expected(
    prompt: NDArray[np.int64],
    kept: NDArray[np.int64],
    rewards: Floats,
    measures: Floats,
    sizes: Sequence[int],
) -> NDArray[np.float64]:
    """[P, len(sizes), columns] what the winner of each prompt is expected to have."""
    order = np.argsort(prompt, kind="stable")
    # the rows of prompt p are starts[p] to starts[p + 1] of the order
    starts = np.searchsorted(prompt[order], np.arange(prompt.max() + 2))
    found = np.empty((len(kept), len(sizes), measures.shape[1]))
    for place, number in enumerate(kept):
        rows = order[starts[number] : starts[number + 1]]
        for at, size in enumerate(sizes):
            found[place, at] = win_shares(rewards[rows], size) @ measures[rows]
    return found


def _rises(expected: NDArray[np.float64], names: Sequence[str]) -> tuple[Rise, ...]:
    change = expected[:, -1] - expected[:, 0]
    # two figures of one prompt: if N changes nothing, c and -c are equally likely
    p = sign_flip_test(change)
    q = benjamini_hochberg(p)
    return tuple(
        Rise(
            name,
            float(expected[:, 0, i].mean()),
            float(expected[:, -1, i].mean()),
            mean_interval(change[:, i]),
            float(p[i]),
            float(q[i]),
        )
        for i, name in enumerate(names)
    )
