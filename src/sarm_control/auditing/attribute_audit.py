"""One audit: what a reward model pays for, on the answers of a file.

Everything that can be had from scored answers is computed; what cannot is a sentence that says why and what
would unlock it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from sarm_control.auditing.attributes.attribute import RESERVED, Attribute
from sarm_control.auditing.attributes.battery import BATTERY, attributes_named
from sarm_control.auditing.attributes.text_edits import EDITS, TextEdit
from sarm_control.auditing.best_of_n import pressure
from sarm_control.auditing.causal_prices import (
    ScoredContrast,
    corrected,
    no_price,
    price_of,
    scored_contrasts,
)
from sarm_control.auditing.finding import NAMED, AttributeFinding
from sarm_control.auditing.mechanism.carrying import own_latent, residual_share
from sarm_control.auditing.mechanism.token_rewards import token_rewards
from sarm_control.auditing.mending.proposal import mend as proposed_mend
from sarm_control.auditing.mending.proposal import unwanted
from sarm_control.auditing.on_pairs import accuracy
from sarm_control.auditing.partial_prices import partial_prices
from sarm_control.auditing.result import Audit, Example, Sampled
from sarm_control.auditing.table import AttributeTable, attribute_table
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.data import WITH_ANSWERS, Row, rows_of
from sarm_control.data import Source as RowSource
from sarm_control.discovery import AnswerCorpus, label_from
from sarm_control.errors import ConfigError, DataError
from sarm_control.evaluation import answer_table
from sarm_control.latents import ScoredRows, score_rows

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

T = TypeVar("T")

SHOWN = 5
"""Headlines of which an example is given, token by token."""


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
    targets = unwanted(found) if names == "auto" else tuple(names)
    return replace(found, mended=proposed_mend(found, data, targets, seed=seed)) if targets else found


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
