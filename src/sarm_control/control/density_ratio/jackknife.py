"""Cross-fitted log ratios of two samples, and the interval of their mean by a delete-a-group jackknife.

Cross-fitted means that the log ratio of a row comes from a fit that did not see the row.

Shapes: `P` policy rows, `H` human rows, `F` features, `G` groups.
"""

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control.density_ratio.estimators import Estimator, Ratio
from sarm_control.control.density_ratio.logistic import Array
from sarm_control.control.density_ratio.separation import balanced_accuracy
from sarm_control.errors import DataError

Groups = NDArray[np.int64]


class CrossFit(NamedTuple):
    """Cross-fitted log ratios, and the mean over the policy with its standard error.

    Args:
        policy: [P] nats.
        human: [H] nats.
        mean: of `policy`.
        fitted_accuracy: balanced accuracy of the ratios on the rows they were fitted on.
        error: jackknife standard error of the mean; too large rather than too small (Efron and Stein, 1981).
        freedom: degrees of freedom of the error.
    """

    policy: Array
    human: Array
    mean: float
    fitted_accuracy: float
    error: float
    freedom: int


class HeldOut(NamedTuple):
    """Log ratios of policy rows [P] and human rows [H] by fits that did not see them, nats."""

    policy: Array
    human: Array


class SampleRows(NamedTuple):
    """Rows of one side: their features [N, F], and their latents [N, D], by which copies are recognised."""

    features: Array
    latents: NDArray[np.float32]

    def groups(self, count: int, seed: int, what: str) -> Groups:
        """[N] the group of each row. Groups have equally many distinct rows, whatever the order of the rows.

        Copies of a row share a group; otherwise a fit would be judged by rows it has seen. A firing latent
        is a real number, so equal rows are copies. Rows of only zeros and ones may be equal by chance, so
        each of them counts as a distinct row.

        Raises:
            DataError: fewer distinct rows than groups; the message begins with `what`.
        """
        # a keyed hash orders rows by content: random like a shuffle, but the same for any order of the input
        salt = seed.to_bytes(8, "big", signed=True)
        rows = np.ascontiguousarray(self.latents)
        keys = np.array([hashlib.blake2b(salt + row.tobytes(), digest_size=8).digest() for row in rows])
        copied = ((rows != 0) & (rows != 1)).any(axis=1)
        place = np.empty(len(rows), np.int64)
        # np.unique sorts by the hash, which is the random order
        distinct, place[copied] = np.unique(keys[copied], return_inverse=True)
        alone = np.flatnonzero(~copied)
        place[alone[np.argsort(keys[alone], kind="stable")]] = len(distinct) + np.arange(len(alone))
        total = len(distinct) + len(alone)
        if total < count:
            raise DataError(
                f"{what} has {total} distinct rows among {len(rows)}, at least {count} are needed",
                hint="copies of an answer say nothing new: give more different answers",
            )
        # in the order of the hashes, each distinct row goes to the next group: at random, and equally many
        return place % count


def cross_fit(
    policy: SampleRows, human: SampleRows, estimator: Estimator, *, groups: int, seed: int
) -> CrossFit:
    """Fits on all groups but one and evaluates that one; then again with each further group deleted.

    Rows get their groups by a hash of their content, so their order changes nothing and copies stay
    together.

    Args:
        policy: P rows.
        human: H rows.
        estimator: fitted `groups * (groups + 1) / 2` times.
        groups: G, at least 3.
        seed: of the groups.

    Raises:
        DataError: fewer distinct rows per side than groups.
    """
    sides = _Sides.of(policy, human, groups, seed)
    left_out = sides.left_out(estimator, groups)
    accuracies = [sides.fitted_accuracy(ratio, g) for g, ratio in enumerate(left_out)]
    log_ratios, human_log_ratios = sides.log_ratios(left_out)
    # groups leave the fits as well as the mean, so that the error holds that of the fits too
    without = _means_without(sides, estimator, left_out)
    # the jackknife's variance: deleted means vary less than the mean itself, by about (G - 1)
    error = np.sqrt((groups - 1) / groups * ((without - without.mean()) ** 2).sum())
    return CrossFit(
        log_ratios,
        human_log_ratios,
        float(log_ratios.mean()),
        float(np.mean(accuracies)),
        float(error),
        groups - 1,
    )


def held_out(
    policy: SampleRows, human: SampleRows, estimator: Estimator, *, groups: int, seed: int
) -> HeldOut:
    """The log ratios of `cross_fit` without the interval, by only `groups` fits.

    Args:
        policy: P rows.
        human: H rows.
        estimator: fitted on all groups but one, in turn.
        groups: G, at least 2.
        seed: of the groups.

    Raises:
        DataError: fewer distinct rows per side than groups.
    """
    sides = _Sides.of(policy, human, groups, seed)
    return sides.log_ratios(sides.left_out(estimator, groups))


class _Sides(NamedTuple):
    policy: Array
    human: Array
    of_policy: Groups
    of_human: Groups

    @classmethod
    def of(cls, policy: SampleRows, human: SampleRows, count: int, seed: int) -> "_Sides":
        of_policy, of_human = (
            sample.groups(count, seed, what)
            for sample, what in ((policy, "the policy"), (human, "the human buffer"))
        )
        return cls(policy.features, human.features, of_policy, of_human)

    def fit(self, estimator: Estimator, without: list[int], start: Ratio | None) -> Ratio:
        # group g of both samples at once: the error of the mean comes from both
        policy = self.policy[~np.isin(self.of_policy, without)]
        return estimator.fit(policy, self.human[~np.isin(self.of_human, without)], start=start)

    def left_out(self, estimator: Estimator, count: int) -> list[Ratio]:
        ratios: list[Ratio] = []
        for g in range(count):
            # from the first solution, which is near: two of these fits differ in two groups of rows
            ratios.append(self.fit(estimator, [g], ratios[0] if ratios else None))
        return ratios

    def log_ratios(self, ratios: list[Ratio]) -> HeldOut:
        policy, human = np.zeros(len(self.policy)), np.zeros(len(self.human))
        for g, ratio in enumerate(ratios):
            policy[self.of_policy == g] = ratio.at(self.policy[self.of_policy == g])
            human[self.of_human == g] = ratio.at(self.human[self.of_human == g])
        return HeldOut(policy, human)

    def fitted_accuracy(self, ratio: Ratio, without: int) -> float:
        policy, human = self.policy[self.of_policy != without], self.human[self.of_human != without]
        return balanced_accuracy(ratio.at(policy), ratio.at(human))


def _means_without(sides: _Sides, estimator: Estimator, left_out: list[Ratio]) -> Array:
    """[G] the cross-fitted mean over the policy when group g is deleted from the fits and from the mean."""
    count = len(left_out)
    sums = np.zeros((count, count))
    for g in range(count):
        for h in range(g):
            # one fit without both groups serves twice: h is held out when g is deleted, and g when h is.
            # It begins at the fit without g, which is near.
            ratio = sides.fit(estimator, [g, h], left_out[g])
            sums[g, h] = ratio.at(sides.policy[sides.of_policy == h]).sum()
            sums[h, g] = ratio.at(sides.policy[sides.of_policy == g]).sum()
    rows = np.bincount(sides.of_policy, minlength=count)
    # the diagonal is 0, since a deleted group is not in the mean
    return np.asarray(sums.sum(axis=1) / (rows.sum() - rows))
