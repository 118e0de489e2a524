"""Where ways to mend are fitted and judged: on the two halves of an audit's prompts.

On one half everything is fitted: the edits, which set of them it is, the regressions, the directions, and
the strength of each way, which is the largest that costs no more accuracy on pairs than the guard allows. On
the other half all of it is judged: what is left of each price, in SDs of the mended reward, so that a mend
that merely makes all rewards small gains nothing; the accuracy before and after; and what else moves.

Shapes: `P` prompts, `N` answers.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.best_of_n import LEAST_PROMPTS as CERTIFIED_PROMPTS
from sarm_control.auditing.causal_prices import ScoredContrast, price_from
from sarm_control.auditing.certificates import SIZES, Movement, certificate
from sarm_control.auditing.mending.guard import Guard, PairCredit, guard, pair_credit
from sarm_control.auditing.mending.latent_edits import LatentMend, Observed
from sarm_control.auditing.mending.mend import Left, Outcome, Point, Slope
from sarm_control.auditing.mending.mended_rewards import (
    Measured,
    MendedReward,
    Way,
    by_length,
    by_projection,
    by_regression,
    by_suppression,
)
from sarm_control.auditing.partial_prices import partial_prices
from sarm_control.auditing.result import Audit
from sarm_control.auditing.table import AttributeTable, Floats, attribute_table, in_units, measured
from sarm_control.errors import DataError
from sarm_control.latents import ScoredRows
from sarm_control.seeds import numpy_generator

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
EVEN_GAIN = 0.01
"""Of accuracy on pairs: edits that make the reward even over answers as they are must be better by more than
this, the point that the guard allows, to be taken."""


class Halves:
    """Fits on one half of the prompts and judges on the other.

    Args:
        audit: of the reward model.
        data: what was audited.
        targets: names of attributes that can be mended.
        mended: names of all that can be.
        guard_data: the pairs of the guard, halved too; those of `data` where None.
        seed: of the halves.
    """

    def __init__(
        self,
        audit: Audit,
        data: ScoredRows,
        targets: tuple[str, ...],
        mended: Sequence[str],
        guard_data: ScoredRows | None,
        seed: int,
    ) -> None:
        self.targets = targets
        self.missing: list[str] = []
        self._audit, self._data, self._table = audit, data, audit.table
        self._fit = fitting_half(len(self._table.prompts), seed)
        self._pairs = guard_data or data
        self._own_pairs = guard_data is None
        self._attributes = [one for one in self._table.attributes if one.name in targets]
        targeted = [one for one in audit.contrasts if one.edit.attribute in set(mended) & set(targets)]
        self._targeted = [part for part in (_halved(one, self._fit) for one in targeted) if part is not None]
        self._others = [
            part[0]
            for part in (
                _halved(one, self._fit) for one in audit.contrasts if one.edit.attribute not in targets
            )
            if part is not None
        ]
        self._judged = [(one, self._measured(one)) for _, one in self._targeted]
        self._answers = Measured(data.scored, self._regressors(self._table))
        # without pairs prices can still be taken away; what that costs is then unknown, and the
        # verdict says so
        self._credit: PairCredit | None = None
        self._guard_fit = self._fit
        try:
            self._credit = pair_credit(self._pairs, self._pairs.scored.rewards.astype(np.float64))
            if not self._own_pairs:
                # other pairs have prompts of their own numbers, which are halved by themselves
                self._guard_fit = fitting_half(int(self._credit.prompt.max()) + 1, seed)
        except DataError as error:
            self.missing.append(f"Guard: {error}. {error.hint}.")

    def latents(self, *, even: bool = False) -> LatentMend:
        """The programme on the fitting half.

        Args:
            even: whether the reward is to become even over answers as they are, too.
        """
        has = self._table.has[:, [one.name in self.targets for one in self._table.attributes]]
        clean = ~has.any(axis=1) & self._fit[self._table.prompt]
        # where every answer has a targeted attribute nothing is clean, and all of them are to change
        # least
        if not clean.any():
            clean = self._fit[self._table.prompt]
        rows = np.flatnonzero(clean)
        return LatentMend(
            [fit for fit, _ in self._targeted],
            self._others,
            self._data.scored.take(rows),
            self._table.prompt[rows],
            self._table.reward_sd,
            self._observed(self._fit[self._table.prompt]) if even else None,
        )

    def _observed(self, chosen: NDArray[np.bool_]) -> Observed:
        """The chosen ones of all answers [N]."""
        rows = np.flatnonzero(chosen)
        scored, prompt = self._data.scored.take(rows), self._table.prompt[rows]
        return Observed.of(scored, prompt, self._answers.regressors[rows])

    def better_edits(self, outcomes: Mapping[str, Outcome], ways: Mapping[str, Way]) -> str:
        """`even` where it is better by more than `EVEN_GAIN` on pairs of the fitting half, else `edits`.

        A slope over answers as they are also holds what is right about them; without a gain only what the
        attribute itself is known to cause is taken away. The mean decides, as it does for strengths. To ask
        for the whole interval of the difference was tried first: with 140 prompts it passed over gains of
        five points (docs/results/audit.md, e).
        """
        if self._credit is None:
            return "edits"
        rewards = {
            name: ways[name].at(one.strength)(self._guarded) if one.strength else self._pairs.scored.rewards
            for name, one in outcomes.items()
        }
        credit = {
            name: pair_credit(self._pairs, one.astype(np.float64)).of(self._guard_fit)
            for name, one in rewards.items()
        }
        if not len(credit["edits"].prompt):
            return "edits"
        return "even" if guard(credit["edits"], credit["even"]).change.mean > EVEN_GAIN else "edits"

    def baselines(self) -> list[Way]:
        """Other ways, fitted on the same half."""
        fitting = [fit for fit, _ in self._targeted]
        rows = np.flatnonzero(self._fit[self._table.prompt])
        ways = [
            by_length(self._data.scored.take(rows), self._table.prompt[rows]),
            by_projection(fitting),
            by_suppression(fitting),
        ]
        part = self._table.of_prompts(self._fit)
        try:
            prices = {one.name: one.sd for one in partial_prices(part)}
        except DataError as error:
            self.missing.append(f"Regression beside the mend: {error}. {error.hint}.")
            return ways
        own = np.array([prices[one.name] for one in self._attributes])
        return [by_regression(own, part.reward_sd), *ways]

    def outcome(self, way: Way, allowed: float) -> Outcome:
        """The strength that the fitting half allows, and the frontier on the other."""
        rewards = {strength: way.at(strength) for strength in STRENGTHS}
        # chosen on the fitting half alone: a strength picked by the accuracy it is judged by would
        # look too cheap
        within = [strength for strength, reward in rewards.items() if self._cost(reward) <= allowed]
        frontier = tuple(self._point(strength, reward) for strength, reward in rewards.items())
        return Outcome(way.name, way.words, max(within, default=0.0), frontier)

    def certificate(self, reward: MendedReward) -> tuple[tuple[Movement, ...], tuple[str, ...]]:
        """What else moves on the judging half, or on answers of a policy's own; or why nobody knows."""
        sampled = self._audit.sampled
        if sampled is None:
            part = self._table.of_prompts(~self._fit)
            # the mend was fitted on the other half, whose winners it knows
            mended = reward(self._answers)[~self._fit[self._table.prompt]]
        else:
            part = sampled.table
            mended = reward(Measured(sampled.data.scored, self._regressors(part)))
        # a size that hardly any prompt has answers for would only widen the bounds of all others
        # (Bonferroni)
        counts = np.bincount(part.prompt, minlength=len(part.prompts))
        sizes = [size for size in (2, *SIZES) if (counts >= size).sum() >= CERTIFIED_PROMPTS]
        try:
            # best of two only where no larger size has enough prompts
            return certificate(part, mended, targeted=self.targets, n=sizes[1:] or sizes), ()
        except DataError as error:
            return (), (f"Certificate: {error}. {error.hint}.",)

    def _point(self, strength: float, reward: MendedReward) -> Point:
        rows = ~self._fit[self._table.prompt]
        # each reward in SDs of its own: one that is merely smaller took no price away
        mended = reward(self._answers)
        before, after = self._table.rewards[rows].std(ddof=1), mended[rows].std(ddof=1)
        left = []
        for contrast, (without, having) in self._judged:
            change = (reward(having) - reward(without)) / max(float(after), 1e-12)
            left.append(
                Left(
                    contrast.edit.attribute,
                    contrast.edit.words,
                    price_from(contrast, contrast.change / float(before)),
                    price_from(contrast, change),
                )
            )
        slopes = (
            self._judged_weights.T @ (values[rows] / max(float(sd), 1e-12))
            for values, sd in ((self._table.rewards, before), (mended, after))
        )
        names = (one.name for one in self._attributes)
        of_each = (Slope(name, float(old), float(new)) for name, old, new in zip(names, *slopes, strict=True))
        return Point(strength, tuple(left), self._guard(reward, ~self._guard_fit), tuple(of_each))

    def _cost(self, reward: MendedReward) -> float:
        """Points of accuracy on the fitting half; 0 without pairs."""
        found = self._guard(reward, self._guard_fit)
        return 0.0 if found is None else found.cost

    def _guard(self, reward: MendedReward, prompts: NDArray[np.bool_]) -> Guard | None:
        """On the pairs of these prompts; None where they have none."""
        if self._credit is None:
            return None
        before = self._credit.of(prompts)
        after = pair_credit(self._pairs, reward(self._guarded)).of(prompts)
        return guard(before, after) if len(before.prompt) else None

    @cached_property
    def _judged_weights(self) -> Floats:
        """What gives slopes on the judging half; see `Observed`."""
        return self._observed(~self._fit[self._table.prompt]).weights

    @cached_property
    def _guarded(self) -> Measured:
        if self._own_pairs:
            return self._answers
        return Measured(self._pairs.scored, self._regressors(attribute_table(self._pairs, self._attributes)))

    def _regressors(self, table: AttributeTable) -> Floats:
        places = [[one.name for one in table.attributes].index(one.name) for one in self._attributes]
        return table.regressors[:, places]

    def _measured(self, contrast: ScoredContrast) -> tuple[Measured, Measured]:
        asked = [self._table.prompts[number] for number in contrast.prompt]
        sides = zip((contrast.without, contrast.having), zip(*contrast.texts, strict=True), strict=True)
        without, having = (
            Measured(scored, _units(self._attributes, asked, texts)) for scored, texts in sides
        )
        return without, having


def _units(attributes: Sequence[Attribute], prompts: Sequence[str], answers: Sequence[str]) -> Floats:
    values = measured(attributes, prompts, answers)
    return np.stack([in_units(one, values[:, i]) for i, one in enumerate(attributes)], axis=1)


def fitting_half(prompts: int, seed: int) -> NDArray[np.bool_]:
    """[P] whether a prompt is of the half that everything is fitted on."""
    order = numpy_generator(seed, "halves of a mend").permutation(prompts)
    return np.asarray(order < (prompts + 1) // 2)


def _halved(one: ScoredContrast, fit: NDArray[np.bool_]) -> tuple[ScoredContrast, ScoredContrast] | None:
    """The two halves of an edit's answers; None where one of them is empty."""
    first = fit[one.prompt]
    return (one.of(first), one.of(~first)) if first.any() and not first.all() else None
