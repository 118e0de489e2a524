"""A mend: edits that take the price of attributes away, judged on prompts that chose nothing.

There are two sets of edits. One takes away what edits of the text are paid, which the attribute itself
causes. The other also makes the reward even in the attribute over answers as they are. It is taken only where
it is better on pairs.

The prompts are halved. On one half everything is fitted: the edits, which set of them it is, the
regressions, the directions, and the strength of each way, which is the largest that costs no more accuracy
on pairs than the guard allows. On the other half all of it is judged: what is left of each price, in SDs of
the mended reward, so that a mend that merely makes all rewards small gains nothing; the accuracy before and
after; and what else moves.

Shapes: `P` prompts, `N` answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.auditing.attribute_audit import Audit
from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.audit_json import finite
from sarm_control.auditing.best_of_n import LEAST_PROMPTS as CERTIFIED_PROMPTS
from sarm_control.auditing.causal_prices import CausalPrice, ScoredContrast, price_from
from sarm_control.auditing.certificates import SIZES, Movement, certificate
from sarm_control.auditing.mending.guard import Guard, PairCredit, guard, pair_credit
from sarm_control.auditing.mending.latent_edits import LatentMend, Observed
from sarm_control.auditing.mending.mended_rewards import (
    Measured,
    MendedReward,
    Way,
    by_edits,
    by_even_edits,
    by_length,
    by_projection,
    by_regression,
    by_suppression,
    with_edits,
)
from sarm_control.auditing.partial_prices import partial_prices
from sarm_control.auditing.table import AttributeTable, Floats, attribute_table, in_units, measured
from sarm_control.control import Edit
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents import ScoredRows
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import Interval

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
GUARD = 1.0
"""Points of accuracy on pairs that a mend may cost."""
EVEN_GAIN = 0.01
"""Of accuracy on pairs: edits that make the reward even over answers as they are must be better by more than
this, the point that the guard allows, to be taken."""
LEAST_PROMPTS = 20
"""Prompts on which an edit of the text must have been tried for its attribute to be mended."""


class Left(NamedTuple):
    """What is left of the causal price of one text edit.

    Args:
        attribute: its name.
        edit: what was done to the text.
        before: the price by the reward as it is, in its SDs.
        after: the price by the mended reward, in SDs of that.
    """

    attribute: str
    edit: str
    before: CausalPrice
    after: CausalPrice


class Slope(NamedTuple):
    """How the reward goes with an attribute over answers as they are, for one SD of it within prompts.

    Args:
        attribute: its name.
        before: by the reward as it is, in its SDs.
        after: by the mended reward, in SDs of that.
    """

    attribute: str
    before: float
    after: float


class Point(NamedTuple):
    """One way at one strength, on the prompts that chose nothing.

    Args:
        strength: 0..1.
        left: of the targeted attributes' prices.
        guard: the accuracy on pairs; None without pairs.
        slopes: on the targeted attributes.
    """

    strength: float
    left: tuple[Left, ...]
    guard: Guard | None
    slopes: tuple[Slope, ...] = ()

    @property
    def worst(self) -> float:
        """The largest price that is left, whatever its sign, SDs."""
        return max(abs(one.after.sd) for one in self.left)


class Outcome(NamedTuple):
    """One way to mend.

    Args:
        name: of the way, see `mended_rewards`.
        words: what it does.
        strength: what was chosen on the other prompts; 0 where no strength is within the guard.
        frontier: strengths against prices and accuracy, ascending.
    """

    name: str
    words: str
    strength: float
    frontier: tuple[Point, ...]

    @property
    def chosen(self) -> Point | None:
        """At the strength that was chosen; None where none was."""
        return next((point for point in self.frontier if point.strength == self.strength), None)


@dataclass(frozen=True)
class Mend:
    """Edits that take the price of attributes away.

    Args:
        targets: names of the attributes.
        edits: of latents; none where no strength is within the guard.
        outcome: what they do.
        others: other ways on the same prompts.
        recommended: whether they keep the guard on prompts that chose nothing.
        why: why, or why not, in a sentence.
        certificate: what else moves under best-of-N; empty where there are too few answers.
        missing: what was not measured.
        fingerprint: of the head the edits are for.
        guard: points of accuracy that were allowed.
    """

    targets: tuple[str, ...]
    edits: tuple[Edit, ...]
    outcome: Outcome
    others: tuple[Outcome, ...]
    recommended: bool
    why: str
    certificate: tuple[Movement, ...]
    missing: tuple[str, ...]
    fingerprint: str
    guard: float

    @property
    def better(self) -> str | None:
        """A sentence about the other way that changes accuracy most, where that is clearly more than ours.

        Clearly: on the same prompts the whole interval of its change lies above the mean change by the edits.
        """
        own = _change(self.outcome)
        if own is None:
            return None
        known = [(change, one) for one in self.others if (change := _change(one)) is not None]
        clear = [(change, one) for change, one in known if change.given and change.low > own.mean]
        if not clear:
            return None
        change, one = max(clear, key=lambda pair: pair[0].mean)
        mean, low, high, edits = (100 * part for part in (change.mean, change.low, change.high, own.mean))
        return (
            f"On the same prompts accuracy changes by {mean:+.1f} points [{low:+.1f}, {high:+.1f}] with "
            f"{one.words}, by {edits:+.1f} with these edits: look at that way first."
        )

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        return {
            "targets": list(self.targets),
            "recommended": self.recommended,
            "why": self.why,
            "better": self.better,
            "guard_points": self.guard,
            "head": self.fingerprint,
            "edits": [str(edit) for edit in self.edits],
            "ways": [_outcome_json(one) for one in (self.outcome, *self.others)],
            "certificate": [
                {**one._asdict(), "low": finite(one.low), "high": finite(one.high)}
                for one in self.certificate
            ],
            "missing": list(self.missing),
        }


def _change(one: Outcome) -> Interval | None:
    """Of accuracy on pairs, at the strength that was chosen."""
    point = one.chosen
    return None if point is None or point.guard is None else point.guard.change


def _outcome_json(one: Outcome) -> dict[str, Any]:
    frontier = [
        {
            "strength": point.strength,
            "left": [
                {
                    "attribute": left.attribute,
                    "edit": left.edit,
                    "before": _price_json(left.before),
                    "after": _price_json(left.after),
                }
                for left in point.left
            ],
            "slopes": [one._asdict() for one in point.slopes],
            "guard": None if point.guard is None else _guard_json(point.guard),
        }
        for point in one.frontier
    ]
    return {"name": one.name, "words": one.words, "strength": one.strength, "frontier": frontier}


def _price_json(one: CausalPrice) -> dict[str, Any]:
    return {**{key: finite(getattr(one, key)) for key in ("sd", "low", "high", "rises")}, "n": one.n}


def _guard_json(one: Guard) -> dict[str, Any]:
    return {
        "before": one.before,
        "after": one.after,
        "change": one.change.as_json(),
        "flips": one.flips.as_json(),
    }


def mendable(audit: Audit) -> tuple[str, ...]:
    """Attributes whose price a mend can work on: text edits of them were tried on enough prompts."""
    names = [one.edit.attribute for one in audit.contrasts if len(np.unique(one.prompt)) >= LEAST_PROMPTS]
    return tuple(dict.fromkeys(names))


def unwanted(audit: Audit) -> tuple[str, ...]:
    """The headlines that can be mended: what `--mend auto` takes."""
    can = mendable(audit)
    return tuple(one.attribute.name for one in audit.headlines if one.attribute.name in can)


def mend(
    audit: Audit,
    data: ScoredRows,
    targets: Sequence[str],
    *,
    guard_points: float = GUARD,
    guard_data: ScoredRows | None = None,
    seed: int = 0,
) -> Mend:
    """Proposes edits for the targeted attributes, jointly, and judges them.

    Nothing is scored: edits act after TopK, so every answer's edited reward is exact algebra.

    Args:
        audit: of the reward model.
        data: what was audited.
        targets: names of attributes.
        guard_points: points of accuracy on pairs that it may cost.
        guard_data: the pairs of the guard, halved too; those of `data` where None.
        seed: of the halves.

    Raises:
        ConfigError: a target that is no attribute of the audit, or that no text edit was tried for.
    """
    _check(audit, targets)
    bench = _Bench(audit, data, tuple(dict.fromkeys(targets)), guard_data, seed)
    made = {"edits": bench.latents(), "even": bench.latents(even=True)}
    ways = [by_edits(made["edits"]), by_even_edits(made["even"]), *bench.baselines()]
    outcomes = {way.name: bench.outcome(way, guard_points) for way in ways}
    own = bench.better_edits({name: outcomes[name] for name in made}, {way.name: way for way in ways})
    ours, others = outcomes[own], [one for name, one in outcomes.items() if name != own]
    edits = made[own].edits(ours.strength) if ours.strength else ()
    recommended, why = _verdict(ours, guard_points)
    moves, missing = bench.certificate(with_edits(edits)) if edits else ((), ())
    return Mend(
        bench.targets,
        edits,
        ours,
        tuple(others),
        recommended,
        why,
        moves,
        (*bench.missing, *missing),
        data.scored.fingerprint,
        guard_points,
    )


def _check(audit: Audit, targets: Sequence[str]) -> None:
    if not targets:
        raise ConfigError("nothing to mend", hint="name attributes of this audit")
    names = [one.name for one in audit.table.attributes]
    can = mendable(audit)
    for name in targets:
        if name not in names:
            raise ConfigError(f"{name!r} is no attribute of this audit", hint=f"it has {', '.join(names)}")
        if name not in can:
            raise ConfigError(
                f"{name} cannot be mended: no edit of the text changes it in {LEAST_PROMPTS} prompts or more",
                hint=f"those that can be are {', '.join(can) or 'none'}",
            )


def _verdict(ours: Outcome, allowed: float) -> tuple[bool, str]:
    point = ours.chosen
    if point is None:
        return False, f"every strength costs more than {allowed:g} points of accuracy on pairs"
    if point.guard is None:
        return False, "there are no pairs, so nobody knows what it costs"
    # a cost that is rounded to what is allowed would seem to be allowed
    digits = 2 if allowed < point.guard.cost < allowed + 0.05 else 1
    said = f"it costs {point.guard.cost:.{digits}f} points of accuracy on pairs that chose nothing"
    if point.guard.cost > allowed:
        return False, f"{said}, and {allowed:g} are allowed"
    if not any(abs(one.after.sd) < abs(one.before.sd) for one in point.left):
        return False, "no price is smaller after it"
    gains = f"accuracy on pairs that chose nothing rises by {-point.guard.cost:.1f} points"
    return True, said if point.guard.cost >= 0 else gains


class _Bench:
    """Fits on one half of the prompts and judges on the other."""

    def __init__(
        self,
        audit: Audit,
        data: ScoredRows,
        targets: tuple[str, ...],
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
        mended = set(mendable(audit))
        targeted = [one for one in audit.contrasts if one.edit.attribute in mended & set(targets)]
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
