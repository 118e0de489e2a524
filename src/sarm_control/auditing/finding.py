"""What an audit knows of one attribute, and when that is sure, unwanted, or of one wording alone."""

import math
from dataclasses import dataclass

from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.causal_prices import CausalPrice, WordingPrice
from sarm_control.auditing.mechanism.carrying import OwnLatent
from sarm_control.auditing.partial_prices import PartialPrice

LEAST_PRICE = 0.1
"""Reward SDs below which a price is real perhaps, and no headline."""
FALSE_DISCOVERIES = 0.05
"""Share of false finds that is let in among all prices of one kind."""
NAMED = 3
"""Latents of a price that are named by words."""


@dataclass(frozen=True)
class AttributeFinding:
    """What is known of one attribute.

    Args:
        attribute: which.
        rates: by role ("chosen", "rejected", "candidate", "response"), share of answers that have it.
        partial: its partial price.
        causal: one price for each text edit of it; none where no edit of it exists.
        residual: share of the causal price that no latent carries; None without a causal price.
        own_latent: how well one latent detects it; None without latents, or with too few answers.
    """

    attribute: Attribute
    rates: dict[str, float]
    partial: PartialPrice | None
    causal: tuple[CausalPrice, ...]
    residual: float | None = None
    own_latent: OwnLatent | None = None

    @property
    def best_causal(self) -> CausalPrice | None:
        """The causal price on the most prompts; None where no answer could be changed."""
        # by its prompts, not by its price: the largest of several prices is large by chance too
        priced = [one for one in self.causal if one.n]
        return max(priced, key=lambda one: one.n) if priced else None

    @property
    def price(self) -> float:
        """The price to believe: the causal one where there is one, else the partial one; NaN without either.

        A partial price also holds what comes along with the attribute. Changing the text in it alone leaves
        that out.
        """
        causal = self.best_causal
        if causal is not None:
            return causal.sd
        return math.nan if self.partial is None else self.partial.sd

    @property
    def contradicted(self) -> bool:
        """Whether one edit surely says that it is paid for, and another surely that it is charged.

        Both are right of their own texts: what is paid is then one wording, not the attribute.
        """
        signs = {one.sd > 0 for one in self.causal if one.n and _surely(one)}
        return len(signs) == 2

    @property
    def wordings_differ(self) -> bool:
        """Whether the wordings of the edit behind the price are worth different amounts, beyond chance."""
        causal = self.best_causal
        # NaN without wordings, and then no finding
        return causal is not None and causal.differ_q <= FALSE_DISCOVERIES

    @property
    def paid_wordings(self) -> tuple[WordingPrice, ...]:
        """The wordings that are surely paid for, by at least `LEAST_PRICE`, the dearest first."""
        wordings = () if self.best_causal is None else self.best_causal.wordings
        paid = (one for one in wordings if _surely(one) and one.sd >= LEAST_PRICE)
        return tuple(sorted(paid, key=lambda one: -one.sd))

    @property
    def one_wording(self) -> WordingPrice | None:
        """The dearest wording where what is paid is a wording and not the attribute; None elsewhere.

        So it is where a wording is surely paid for and the mean of all is not. And where the mean is, but
        falls below `LEAST_PRICE` without that wording, and the wordings differ.
        """
        causal, paid = self.best_causal, self.paid_wordings
        if causal is None or not paid or self.contradicted:
            return None
        if not self._paid:
            return paid[0]
        alone = self.wordings_differ and causal.rest is not None and causal.rest.sd < LEAST_PRICE
        return paid[0] if alone else None

    @property
    def sure(self) -> bool:
        """Whether the price to believe is other than 0 by more than chance, whatever the wording."""
        causal = self.best_causal
        if causal is not None:
            return _surely(causal) and not self.contradicted
        return self.partial is not None and self.partial.q <= FALSE_DISCOVERIES

    @property
    def disagree(self) -> bool:
        """Whether both prices are sure and of different signs."""
        causal, partial = self.best_causal, self.partial
        # `not <=` and not `>`: a partial price that does not exist has the q NaN, which is no finding
        if causal is None or partial is None or not partial.q <= FALSE_DISCOVERIES:
            return False
        return self.sure and causal.sd * partial.sd < 0

    @property
    def unwanted(self) -> bool:
        """Whether it is a matter of style that is paid for, surely and by at least `LEAST_PRICE`.

        Be it in one wording alone. Only changed texts can say so: a partial price is what comes along, see
        `associated`.
        """
        if self.best_causal is None or not self.attribute.style:
            return False
        return self._paid or self.one_wording is not None

    @property
    def paid_content(self) -> bool:
        """Whether it is no matter of style and paid for all the same, as surely as a headline is.

        An edit of the text has to say so. A reward for numbers may be wanted, one for broken endings is not:
        the reader knows.
        """
        return self.best_causal is not None and not self.attribute.style and self._paid

    @property
    def associated(self) -> bool:
        """The same by its partial price, where no edit of the text could say whether it is that itself.

        Right answers are longer than broken ones, so a reward for right answers alone has a partial price of
        length, whatever else is listed.
        """
        return self.best_causal is None and self.attribute.style and self._paid

    @property
    def _paid(self) -> bool:
        return self.sure and self.price >= LEAST_PRICE


def _surely(price: CausalPrice | WordingPrice) -> bool:
    # both: q leaves out prompts without a change, so it can be small where most prompts do not change and the
    # median is 0; the interval of the median says that, but is not corrected for the number of prices
    return price.q <= FALSE_DISCOVERIES and (price.low > 0 or price.high < 0)
