"""Two reward models on the same answers: which prices changed from the one to the other.

Each price is in SDs of its own reward, so that a reward of another scale is no change. The causal change is
the median over prompts of `c_new / SD_new - c_old / SD_old`, where both models scored the same changed texts;
the partial change is the partial price of `r_new / SD_new - r_old / SD_old`. Both are paired: what the models
have in common cancels.

Shapes: `N` answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from sarm_control.auditing.audit_json import finite
from sarm_control.auditing.causal_prices import CausalPrice, ScoredContrast, corrected, price_from
from sarm_control.auditing.finding import FALSE_DISCOVERIES, AttributeFinding
from sarm_control.auditing.partial_prices import PartialPrice, partial_prices
from sarm_control.auditing.result import Audit
from sarm_control.errors import DataError
from sarm_control.notebooks import data_frame

Kind = Literal["causal", "partial"]


class PriceChange(NamedTuple):
    """How the price of one attribute changed.

    Args:
        name: of the attribute.
        kind: of price that is compared: the causal one where both models have it, else the partial one.
        old: SDs of the old reward.
        new: SDs of the new reward.
        change: of the prices, paired; a median of changes is not the change of medians.
        low: lower end of its 95 % interval.
        high: upper end.
        q: two-sided, after Benjamini and Hochberg over all changes of its kind.
        n: prompts.
    """

    name: str
    kind: Kind
    old: float
    new: float
    change: float
    low: float
    high: float
    q: float
    n: int

    @property
    def sure(self) -> bool:
        """Whether it is other than 0 by more than chance."""
        return self.q <= FALSE_DISCOVERIES and (self.low > 0 or self.high < 0)

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        numbers = {name: finite(getattr(self, name)) for name in ("old", "new", "change", "low", "high", "q")}
        return {"name": self.name, "kind": self.kind, **numbers, "n": self.n, "sure": self.sure}


@dataclass(frozen=True)
class PriceChanges:
    """All changes, the largest rise first; attributes without a price in both audits are left out."""

    changes: tuple[PriceChange, ...]

    def of(self, name: str) -> PriceChange | None:
        """That of one attribute; None where it has no price in both."""
        return next((one for one in self.changes if one.name == name), None)

    def as_json(self) -> list[dict[str, Any]]:
        """The same as a JSON list."""
        return [one.as_json() for one in self.changes]

    def to_pandas(self) -> Any:
        """A pandas frame with a row for each attribute.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame(({**one._asdict(), "sure": one.sure} for one in self.changes), "name")


def price_changes(new: Audit, old: Audit) -> PriceChanges:
    """The changes of prices from one reward model to another.

    Args:
        new: an audit.
        old: an audit of the same rows, with the same attributes, edits and seed, by another reward model.

    Raises:
        DataError: the audits are of other answers.
    """
    if new.table.answers != old.table.answers or new.table.prompts != old.table.prompts:
        raise DataError(
            "the two audits are of different answers", hint="give both models the same rows, in one order"
        )
    causal = _causal(new, old)
    partial = _partial(new, old)
    found = []
    for one in new.findings:
        name = one.attribute.name
        before = next(other for other in old.findings if other.attribute.name == name)
        change = causal.get(name)
        if change is not None:
            found.append(_change("causal", change, _priced(before, change.edit), _priced(one, change.edit)))
        elif name in partial and one.partial is not None and before.partial is not None:
            found.append(_change("partial", partial[name], before.partial.sd, one.partial.sd))
    return PriceChanges(tuple(sorted(found, key=lambda one: -one.change)))


def _change(kind: Kind, price: CausalPrice | PartialPrice, old: float, new: float) -> PriceChange:
    name = price.attribute if isinstance(price, CausalPrice) else price.name
    return PriceChange(name, kind, old, new, price.sd, price.low, price.high, price.q, price.n)


def _priced(finding: AttributeFinding, edit: str) -> float:
    return next(price.sd for price in finding.causal if price.edit == edit)


def _causal(new: Audit, old: Audit) -> dict[str, CausalPrice]:
    """The change for each attribute, by the edit that tells its price in the new audit."""
    changes = []
    for finding in new.findings:
        best = finding.best_causal
        if best is None:
            continue
        pair = [_contrast(audit.contrasts, best) for audit in (new, old)]
        # other texts, as another seed draws them, cannot be paired; the attribute's partial price is
        # compared
        if pair[0] is None or pair[1] is None or pair[0].texts != pair[1].texts:
            continue
        moved = pair[0].change / new.table.reward_sd - pair[1].change / old.table.reward_sd
        changes.append(price_from(pair[0], moved))
    return {one.attribute: one for one in corrected(changes)}


def _contrast(contrasts: Sequence[ScoredContrast], price: CausalPrice) -> ScoredContrast | None:
    wanted = (price.attribute, price.edit)
    return next((one for one in contrasts if (one.edit.attribute, one.edit.words) == wanted), None)


def _partial(new: Audit, old: Audit) -> dict[str, PartialPrice]:
    """Partial prices of the difference of both rewards, back in SDs of each."""
    difference = new.table.rewards / new.table.reward_sd - old.table.rewards / old.table.reward_sd
    table = replace(new.table, rewards=difference)
    # `partial_prices` divides by the SD of these differences, which is taken back below
    unit = table.reward_sd
    if unit == 0.0:
        return {
            one.attribute.name: one.partial._replace(sd=0.0, low=0.0, high=0.0, p=1.0, q=1.0)
            for one in new.findings
            if one.partial is not None and one.partial.why is None
        }
    try:
        prices = partial_prices(table)
    except DataError:
        # the audits say why there are no partial prices
        return {}
    return {
        one.name: one._replace(sd=one.sd * unit, low=one.low * unit, high=one.high * unit)
        for one in prices
        if one.why is None and np.isfinite(one.sd)
    }
