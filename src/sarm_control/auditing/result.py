"""What an audit found: every attribute, what best-of-N selects for, examples, and what was not measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sarm_control.auditing.best_of_n import Pressure
from sarm_control.auditing.causal_prices import ScoredContrast
from sarm_control.auditing.finding import AttributeFinding
from sarm_control.auditing.mechanism.token_rewards import TokenReward
from sarm_control.auditing.on_pairs import Accuracy
from sarm_control.auditing.table import AttributeTable
from sarm_control.latents import ScoredRows
from sarm_control.notebooks import Bar, data_frame, html_table, number, span

if TYPE_CHECKING:
    from sarm_control.auditing.certificates import Movement
    from sarm_control.auditing.mending.mend import Mend


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
