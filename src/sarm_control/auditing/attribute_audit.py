"""One audit: what a reward model pays for, on the answers of a file.

Everything that can be had from scored answers is computed; what cannot is a sentence that says why and what
would unlock it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from sarm_control.auditing.attributes.attribute import RESERVED, Attribute
from sarm_control.auditing.attributes.battery import BATTERY, attributes_named
from sarm_control.auditing.attributes.text_edits import EDITS, TextEdit
from sarm_control.auditing.best_of_n import Pressure, pressure
from sarm_control.auditing.causal_prices import (
    CausalPrice,
    ScoredContrast,
    WordingPrice,
    corrected,
    no_price,
    price_of,
    scored_contrasts,
)
from sarm_control.auditing.mechanism.carrying import OwnLatent, own_latent, residual_share
from sarm_control.auditing.mechanism.token_rewards import TokenReward, token_rewards
from sarm_control.auditing.on_pairs import Accuracy, accuracy
from sarm_control.auditing.partial_prices import PartialPrice, partial_prices
from sarm_control.auditing.table import AttributeTable, attribute_table
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import WITH_ANSWERS, Row, rows_of
from sarm_control.data import Source as RowSource
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.errors import ConfigError, DataError
from sarm_control.evaluation import answer_table
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.notebooks import Bar, data_frame, html_table, number, span

if TYPE_CHECKING:
    from sarm_control.auditing.certificates import Movement
    from sarm_control.auditing.mending.mend import Mend
    from sarm_control.reward_model import RewardModel

T = TypeVar("T")

LEAST_PRICE = 0.1
"""Reward SDs below which a price is real perhaps, and no headline."""
FALSE_DISCOVERIES = 0.05
"""Share of false finds that is let in among all prices of one kind."""
NAMED = 3
"""Latents of a price that are named by words."""
SHOWN = 5
"""Headlines of which an example is given, token by token."""


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


class Sampled(NamedTuple):
    """Several answers of one policy to each prompt.

    Args:
        data: rows and their scores.
        table: their attributes.
    """

    data: ScoredRows
    table: AttributeTable


class Example(NamedTuple):
    """An answer without an attribute and with it, and the reward after every token of both.

    Args:
        attribute: its name.
        edit: what was done to the text; of several wordings the one that it has.
        prompt: the last user turn.
        without: the text without it.
        having: the text with it.
        sd: reward SDs between both: of all answers the one nearest to the causal price.
        tokens_without: see `token_rewards`.
        tokens_having: the same.
    """

    attribute: str
    edit: str
    prompt: str
    without: str
    having: str
    sd: float
    tokens_without: tuple[TokenReward, ...]
    tokens_having: tuple[TokenReward, ...]


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
        latent_words: latent -> the words that set answers with it apart, of those that carry a sure price.
        accuracy: on the pairs among the rows; None without pairs.
        examples: one for each of the first headlines.
        mended: the mend that was asked for; None without one.
    """

    table: AttributeTable
    findings: tuple[AttributeFinding, ...]
    pressure: Pressure | None
    missing: tuple[str, ...]
    contrasts: tuple[ScoredContrast, ...] = ()
    sampled: "Sampled | None" = None
    latent_words: Mapping[int, str] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    examples: tuple[Example, ...] = ()
    mended: "Mend | None" = None

    @property
    def certificate(self) -> "tuple[Movement, ...]":
        """What else moves under the mend; empty without a mend, or with too few answers to a prompt."""
        return () if self.mended is None else self.mended.certificate

    @property
    def headlines(self) -> tuple[AttributeFinding, ...]:
        """What is paid for that nobody asked for, the dearest first."""
        return tuple(one for one in self.findings if one.unwanted)

    @property
    def content(self) -> tuple[AttributeFinding, ...]:
        """What is paid for and no matter of style; no headlines, since it may be wanted."""
        return tuple(one for one in self.findings if one.paid_content)

    @property
    def associations(self) -> tuple[AttributeFinding, ...]:
        """Style that more reward comes with, and no edit of the text says why; no headlines."""
        return tuple(one for one in self.findings if one.associated)

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
        from sarm_control.auditing.audit_json import audit_json

        return audit_json(self)


def audit(
    rm: "RewardModel",
    data: ScoredRows | Sequence[Row] | RowSource,
    *,
    candidates: ScoredRows | Sequence[Row] | RowSource | None = None,
    attributes: Sequence[Attribute | str] = BATTERY,
    edits: Sequence[TextEdit] = EDITS,
    mend: Sequence[str] | Literal["auto"] = (),
    most: int = 200,
    all_wordings: bool = False,
    seed: int = 0,
    batch_tokens: int | None = None,
    progress: ProgressFactory = no_progress,
) -> Audit:
    """Audits a reward model on scored answers.

    Args:
        rm: the reward model that gave the scores; it scores the changed texts too.
        data: rows and the scores of their answers; or rows, or what `read_rows` takes, which are scored.
        candidates: several answers to each prompt, for what best-of-N selects; those of `data` where None.
        attributes: what to ask about, or names of the battery; names are distinct.
        edits: the text edits to try; those of attributes that are not asked about are left out.
        mend: attributes whose price is to be taken away, see `mend`; `auto` takes what is unwanted.
        most: prompts an edit is tried on.
        all_wordings: whether each of their answers gets every wording of an edit; by default one, or as many
            as 30 sets of all wordings need.
        seed: of the draw of those prompts, and of their wordings.
        batch_tokens: see `RewardModel.score`.
        progress: see `RewardModel.score`.

    Raises:
        ConfigError: two attributes of one name, or one that is called as a column of answers.
        DataError: no answers, answers that all have one reward, or an attribute that failed.
        MissingExtraError: the extra `audit` is not installed.
    """
    asked = [attributes_named([one])[0] if isinstance(one, str) else one for one in attributes]
    _check_names(asked)
    names = {one.name for one in asked}
    # before anything is scored: edits of what was not asked cost forward passes and belong to no finding
    edits = [one for one in edits if one.attribute in names]
    scored = _scored(rm, data, batch_tokens, progress)
    table = _table(scored, asked)
    sampled = None if candidates is None else _sampled(_scored(rm, candidates, batch_tokens, progress), asked)
    contrasts = scored_contrasts(
        rm,
        scored,
        table,
        edits=edits,
        most=most,
        seed=seed,
        all_wordings=all_wordings,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    missing: list[str] = []
    findings = _findings(table, edits, contrasts, scored, missing, seed)
    tried = tuple(one for one in contrasts if one is not None)
    selected = _or_missing("Pressure", missing, lambda: pressure((sampled or Sampled(scored, table)).table))
    right = _or_missing("Accuracy", missing, lambda: accuracy(scored, table))
    # in two steps: words and examples are of headlines, which are known once there is an audit
    whole = Audit(table, findings, selected, tuple(missing), tried, sampled, accuracy=right)
    whole = replace(whole, latent_words=_latent_words(whole, scored), examples=_examples(rm, whole, scored))
    return _with_mend(whole, scored, mend, seed) if mend else whole


def _scored(
    rm: "RewardModel",
    data: ScoredRows | Sequence[Row] | RowSource,
    batch_tokens: int | None,
    progress: ProgressFactory,
) -> ScoredRows:
    if isinstance(data, ScoredRows):
        return data
    rows = rows_of(data, want=WITH_ANSWERS)
    return ScoredRows(rows, score_rows(rm, rows, batch_tokens=batch_tokens, progress=progress))


def _table(data: ScoredRows, attributes: Sequence[Attribute]) -> AttributeTable:
    if not len(data.scored):
        raise DataError("no answers to audit", hint="give pairs, candidates or answers")
    table = attribute_table(data, attributes)
    if table.reward_sd == 0.0:
        raise DataError(
            "all answers have the same reward", hint="see `sarm score`: the reward model may be broken"
        )
    return table


def _sampled(data: ScoredRows, attributes: Sequence[Attribute]) -> Sampled:
    return Sampled(data, attribute_table(data, attributes))


def _or_missing(what: str, missing: list[str], compute: Callable[[], T]) -> T | None:
    """What can be computed; else why not, and what would unlock it, among the missing."""
    try:
        return compute()
    # of the data alone: a missing package or a fault of the program is no property of an audit, and ends
    # it
    except DataError as error:
        missing.append(f"{what}: {error}. {_sentence(error.hint)}".rstrip())
        return None


def _findings(
    table: AttributeTable,
    edits: Sequence[TextEdit],
    contrasts: Sequence[ScoredContrast | None],
    data: ScoredRows,
    missing: list[str],
    seed: int,
) -> tuple[AttributeFinding, ...]:
    """What is known of every attribute, the highest price first; those without a price come last."""
    partial = {
        one.name: one for one in _or_missing("Partial prices", missing, lambda: partial_prices(table)) or ()
    }
    # over the edits of all attributes, before the best edit of each is picked: q pays for every edit
    # tried
    causal = corrected(
        [
            no_price(edit) if one is None else price_of(one, table.reward_sd)
            for edit, one in zip(edits, contrasts, strict=True)
        ]
    )
    shares = {
        (one.edit.attribute, one.edit.words): residual_share(one) for one in contrasts if one is not None
    }
    roles = sorted(set(table.role.tolist()))
    found = []
    for place, one in enumerate(table.attributes):
        rates = {role: float(table.has[table.role == role, place].mean()) for role in roles}
        prices = tuple(price for price in causal if price.attribute == one.name)
        finding = AttributeFinding(one, rates, partial.get(one.name), prices)
        best = finding.best_causal
        share = None if best is None else shares[one.name, best.edit]
        own = own_latent(table, data.scored, place, seed=seed)
        found.append(replace(finding, residual=share, own_latent=own))
    # NaN compares with nothing, so as a key by itself it would leave the order of the others to chance
    return tuple(sorted(found, key=lambda one: (math.isnan(one.price), -_or_zero(one.price))))


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _with_mend(found: Audit, data: ScoredRows, names: Sequence[str] | Literal["auto"], seed: int) -> Audit:
    # imported here: a mend is made of an audit
    from sarm_control.auditing.mending.proposal import mend, unwanted

    targets = unwanted(found) if names == "auto" else tuple(names)
    return replace(found, mended=mend(found, data, targets, seed=seed)) if targets else found


def _examples(rm: "RewardModel", found: Audit, data: ScoredRows) -> tuple[Example, ...]:
    """For each of the first headlines the answer whose change is nearest to the price."""
    numbers = answer_table(data.rows, len(data.scored)).row_prompts()
    # the table keeps last turns alone; the model reads whole conversations
    prompts = {int(number): row.prompt for number, row in zip(numbers, data.rows, strict=True)}
    examples = []
    for one in found.headlines[:SHOWN]:
        price = one.best_causal
        if price is None:
            continue
        named = (price.attribute, price.edit)
        contrast = next(each for each in found.contrasts if (each.edit.attribute, each.edit.words) == named)
        changes, shown = contrast.change / found.table.reward_sd, one.one_wording or price
        rows = np.arange(len(changes))
        if one.one_wording is not None:
            rows = np.array([n for n in range(len(changes)) if contrast.done(n) == shown.edit])
        nearest = int(rows[np.argmin(np.abs(changes[rows] - shown.sd))])
        prompt = int(contrast.prompt[nearest])
        without, having = contrast.texts[nearest]
        examples.append(
            Example(
                attribute=price.attribute,
                edit=contrast.done(nearest),
                prompt=found.table.prompts[prompt],
                without=without,
                having=having,
                sd=float(changes[nearest]),
                tokens_without=token_rewards(rm, prompts[prompt], without),
                tokens_having=token_rewards(rm, prompts[prompt], having),
            )
        )
    return tuple(examples)


def _check_names(attributes: Sequence[Attribute]) -> None:
    names = [one.name for one in attributes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two attributes are called {twice}", hint="give one of them another name")
    taken = next((name for name in names if name in RESERVED), None)
    if taken is not None:
        raise ConfigError(
            f"an attribute cannot be called {taken}: tables of answers have a column of that name",
            hint="give it another name",
        )


def _latent_words(found: Audit, data: ScoredRows) -> dict[int, str]:
    """What the latents that carry sure prices are about, by the words of `sarm label`; asks nobody."""
    prices = [one.best_causal for one in found.findings if one.sure]
    latents = {part.latent for price in prices if price is not None for part in price.carriers[:NAMED]}
    if not latents:
        return {}
    corpus = AnswerCorpus(data)
    labels = {i: label_from(corpus.examples(i), i, "", words=1, shown=0) for i in sorted(latents)}
    return {i: label.words[0].text for i, label in labels.items() if label.words}


def _sentence(hint: str | None) -> str:
    return "" if not hint else f"{hint[0].upper()}{hint[1:]}."


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
