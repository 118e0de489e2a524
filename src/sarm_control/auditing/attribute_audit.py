"""One audit: what a reward model pays for, on the answers of a file.

Everything that can be had from scored answers is computed; what cannot is a sentence that says why and what
would unlock it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.auditing.attributes.attribute import Attribute
from sarm_control.auditing.attributes.battery import BATTERY
from sarm_control.auditing.attributes.text_edits import EDITS, TextEdit
from sarm_control.auditing.best_of_n import Pressure, pressure
from sarm_control.auditing.causal_prices import (
    CausalPrice,
    ScoredContrast,
    corrected,
    no_price,
    price_of,
    scored_contrasts,
)
from sarm_control.auditing.partial_prices import PartialPrice, partial_prices
from sarm_control.auditing.table import AttributeTable, attribute_table
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.errors import ConfigError, DataError
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import Bar, data_frame, html_table, number, span

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

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
    """

    attribute: Attribute
    rates: dict[str, float]
    partial: PartialPrice | None
    causal: tuple[CausalPrice, ...]

    @property
    def best_causal(self) -> CausalPrice | None:
        """The causal price on the most prompts; None where no answer could be changed."""
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
    def sure(self) -> bool:
        """Whether the price to believe is other than 0 by more than chance."""
        causal = self.best_causal
        if causal is not None:
            return causal.q <= FALSE_DISCOVERIES and (causal.low > 0 or causal.high < 0)
        return self.partial is not None and self.partial.q <= FALSE_DISCOVERIES

    @property
    def disagree(self) -> bool:
        """Whether both prices are sure and of different signs."""
        causal, partial = self.best_causal, self.partial
        if causal is None or partial is None or not partial.q <= FALSE_DISCOVERIES:
            return False
        return self.sure and causal.sd * partial.sd < 0

    @property
    def unwanted(self) -> bool:
        """Whether it is a matter of style that is rewarded, surely and by at least `LEAST_PRICE`."""
        return self.attribute.style and self.sure and self.price >= LEAST_PRICE


class Sampled(NamedTuple):
    """Several answers of one policy to each prompt.

    Args:
        data: rows and their scores.
        table: their attributes.
    """

    data: ScoredRows
    table: AttributeTable


@dataclass(frozen=True)
class Audit:
    """What a reward model pays for.

    Args:
        table: every answer's attributes and reward.
        findings: one for each attribute, the highest price first; those without a price come last.
        pressure: what best-of-N selects for; None where prompts have too few answers.
        missing: what was not measured, and what would unlock it.
        contrasts: the changed answers that causal prices are of.
        sampled: what the pressure is of, where that is other answers than those of `table`.
        latent_words: latent -> the words that set answers with it apart, of those that carry a headline.
    """

    table: AttributeTable
    findings: tuple[AttributeFinding, ...]
    pressure: Pressure | None
    missing: tuple[str, ...]
    contrasts: tuple[ScoredContrast, ...] = ()
    sampled: "Sampled | None" = None
    latent_words: Mapping[int, str] = field(default_factory=dict)

    @property
    def headlines(self) -> tuple[AttributeFinding, ...]:
        """What is paid for that nobody asked for, the dearest first."""
        return tuple(one for one in self.findings if one.unwanted)

    @property
    def prices(self) -> Any:
        """A pandas DataFrame with a row for each attribute.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return data_frame((_flat(one) for one in self.findings), "name")

    def to_pandas(self) -> Any:
        """The same as `prices`."""
        return self.prices

    def _repr_html_(self) -> str:
        """The price list in a notebook, what nobody asked for first."""
        longest = max((abs(one.price) for one in self.findings if math.isfinite(one.price)), default=0.0)
        rows = (
            (
                one.attribute.words,
                Bar(one.price, longest, number(one.price, "+.2f")),
                "unwanted" if one.unwanted else "sure" if one.sure else "not sure",
                *_price_cells(one),
            )
            for one in self.findings
        )
        head = ("attribute", "price in SDs", "", "interval", "how", "prompts")
        title = (
            f"{len(self.headlines)} attributes of style are rewarded"
            if self.headlines
            else "No style is rewarded"
        )
        return html_table(title, head, rows, " ".join(self.missing))

    def as_json(self) -> dict[str, Any]:
        """The same as a JSON object; null where there is no number."""
        return {
            "answers": len(self.table.answers),
            "prompts": len(self.table.prompts),
            "reward_sd": self.table.reward_sd,
            "attributes": [_finding_json(one) for one in self.findings],
            "headlines": [one.attribute.name for one in self.headlines],
            "latent_words": {str(latent): words for latent, words in self.latent_words.items()},
            "pressure": None if self.pressure is None else _pressure_json(self.pressure),
            "missing": list(self.missing),
        }


def audit(
    rm: "RewardModel",
    data: ScoredRows,
    *,
    candidates: ScoredRows | None = None,
    attributes: Sequence[Attribute] = BATTERY,
    edits: Sequence[TextEdit] = EDITS,
    most: int = 200,
    seed: int = 0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> Audit:
    """Audits a reward model on scored answers.

    Args:
        rm: the reward model that gave the scores; it scores the changed texts too.
        data: rows and the scores of their answers.
        candidates: several answers to each prompt, for what best-of-N selects; those of `data` where None.
        attributes: what to ask about; names are distinct.
        edits: the text edits to try.
        most: prompts an edit is tried on.
        seed: of the draw of those prompts.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        ConfigError: two attributes of one name.
        DataError: no answers, answers that all have one reward, or an attribute that failed.
        MissingExtraError: the extra `audit` is not installed.
    """
    _check_names(attributes)
    if not len(data.scored):
        raise DataError("no answers to audit", hint="give pairs, candidates or answers")
    table = attribute_table(data, attributes)
    if table.reward_sd == 0.0:
        raise DataError(
            "all answers have the same reward", hint="see `sarm score`: the reward model may be broken"
        )
    missing: list[str] = []
    partial: dict[str, PartialPrice] = {}
    try:
        partial = {one.name: one for one in partial_prices(table)}
    except DataError as error:
        missing.append(f"Partial prices: {error}. {_sentence(error.hint)}")
    contrasts = scored_contrasts(
        rm, data, table, edits=edits, most=most, seed=seed, batch_tokens=batch_tokens, progress=progress
    )
    causal = corrected(
        [
            no_price(edit) if one is None else price_of(one, table.reward_sd)
            for edit, one in zip(edits, contrasts, strict=True)
        ]
    )
    selected: Pressure | None = None
    sampled: Sampled | None = None
    if candidates is not None:
        sampled = Sampled(candidates, attribute_table(candidates, attributes))
    try:
        selected = pressure(table if sampled is None else sampled.table)
    except DataError as error:
        missing.append(f"Pressure: {error}. {_sentence(error.hint)}")
    roles = sorted(set(table.role.tolist()))
    found = [
        AttributeFinding(
            one,
            {role: float(table.has[table.role == role, place].mean()) for role in roles},
            partial.get(one.name),
            tuple(price for price in causal if price.attribute == one.name),
        )
        for place, one in enumerate(table.attributes)
    ]
    order = sorted(
        found, key=lambda one: (math.isnan(one.price), -one.price if not math.isnan(one.price) else 0.0)
    )
    tried = tuple(one for one in contrasts if one is not None)
    whole = Audit(table, tuple(order), selected, tuple(missing), tried, sampled)
    return replace(whole, latent_words=_latent_words(whole, data))


def _check_names(attributes: Sequence[Attribute]) -> None:
    names = [one.name for one in attributes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two attributes are called {twice}", hint="give one of them another name")


def _latent_words(found: Audit, data: ScoredRows) -> dict[int, str]:
    """What the latents that carry headlines are about, by the words of `sarm label`; asks nobody."""
    prices = [one.best_causal for one in found.headlines]
    latents = {part.latent for price in prices if price is not None for part in price.carriers[:NAMED]}
    if not latents:
        return {}
    corpus = AnswerCorpus(data)
    labels = {i: label_from(corpus.examples(i), i, "", words=1, shown=0) for i in sorted(latents)}
    return {i: label.words[0].text for i, label in labels.items() if label.words}


def _sentence(hint: str | None) -> str:
    return "" if not hint else f"{hint[0].upper()}{hint[1:]}."


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _partial_json(one: PartialPrice) -> dict[str, Any]:
    numbers = {key: _number(getattr(one, key)) for key in ("sd", "low", "high", "p", "q")}
    return {**numbers, "n": one.n, "why": one.why}


def _causal_json(one: CausalPrice) -> dict[str, Any]:
    numbers = {key: _number(getattr(one, key)) for key in ("sd", "low", "high", "rises", "p", "q")}
    latents = [{"latent": part.latent, "sd": part.sd} for part in one.carriers]
    return {"edit": one.edit, **numbers, "n": one.n, "answers": one.answers, "latents": latents}


def _finding_json(one: AttributeFinding) -> dict[str, Any]:
    causal = one.best_causal
    return {
        "name": one.attribute.name,
        "words": one.attribute.words,
        "unit": one.attribute.unit,
        "style": one.attribute.style,
        "rate": one.rates,
        "price": _number(one.price),
        "sure": one.sure,
        "disagree": one.disagree,
        "partial": None if one.partial is None else _partial_json(one.partial),
        "causal": None if causal is None else _causal_json(causal),
        "edits": [_causal_json(price) for price in one.causal],
    }


def _price_cells(one: AttributeFinding) -> tuple[str, str, str]:
    causal, partial = one.best_causal, one.partial
    if causal is not None:
        return span(causal.low, causal.high, "+.2f"), "the text was changed", str(causal.n)
    if partial is not None:
        return span(partial.low, partial.high, "+.2f"), "answers beside each other", str(partial.n)
    return "", "no price", ""


def _flat(one: AttributeFinding) -> dict[str, Any]:
    causal = one.best_causal
    row: dict[str, Any] = {"name": one.attribute.name, "price": one.price, "sure": one.sure}
    row |= {f"rate_{role}": rate for role, rate in one.rates.items()}
    if one.partial is not None:
        row |= {f"partial_{key}": getattr(one.partial, key) for key in ("sd", "low", "high", "q", "n")}
    if causal is not None:
        row |= {f"causal_{key}": getattr(causal, key) for key in ("sd", "low", "high", "rises", "q", "n")}
    return row


def _pressure_json(one: Pressure) -> dict[str, Any]:
    return {
        "n": list(one.n),
        "kl": list(one.kl),
        "reward": [value.as_json() for value in one.reward],
        "attributes": {name: [value.as_json() for value in curve] for name, curve in one.curves.items()},
        "rises": [
            {
                "name": rise.name,
                "at_one": rise.at_one,
                "at_most": rise.at_most,
                "change": rise.change.as_json(),
                "p": rise.p,
                "q": rise.q,
            }
            for rise in one.rises
        ],
        "prompts": one.prompts,
        "left_out": one.left_out,
    }
