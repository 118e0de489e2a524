"""Edits with several wordings: rewards that are programs (oracle), designs and chance (property)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, friedmanchisquare

from sarm_control.auditing import (
    EDITS,
    Attribute,
    AttributeFinding,
    Audit,
    TextEdit,
    added_behind,
    audit,
    audit_text,
    price_changes,
)
from sarm_control.auditing.attributes.added_texts import OFFERS
from sarm_control.auditing.attributes.battery import BATTERY
from sarm_control.auditing.attributes.shape import words
from sarm_control.auditing.attributes.text_edits import never
from sarm_control.auditing.attributes.wording import closing_offer
from sarm_control.auditing.causal_prices import (
    ScoredContrast,
    corrected,
    median_interval,
    price_from,
    worded_price,
)
from sarm_control.auditing.wordings import differ_p, drawn_wordings, means_of_sets, sets_of, wordings_each
from sarm_control.data import Row
from sarm_control.latents import ScoredRows
from sarm_control.report import audit_page
from sarm_control.statistics import benjamini_hochberg
from tests.outside import load
from tests.present import present

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
UNREAD: Any = None  # scores, where they play no part
WORDED = [one for one in EDITS if one.wordings]
MEASURES = {one.name: one for one in BATTERY}
ANSWERS = (
    "It boils at a hundred degrees.",
    "It boils at a hundred degrees now. Then it steams. Then it is gone.",
    "Three steps:\n\n- boil water\n- add salt\n- stir",
)
CLOSING = added_behind("closing", OFFERS, closing_offer, kind="offers of help")


def test_every_kind_of_text_that_is_put_in_has_six_wordings() -> None:
    kinds = {one.attribute for one in WORDED}
    assert kinds == {"opener", "closing", "length", "emoji", "apology", "hedging", "certainty"}
    assert {len(one.wordings) for one in WORDED} == {6}
    # whatever else puts a text in takes it from the answer itself
    assert not [one.words for one in EDITS if '"' in one.words]


@pytest.mark.parametrize("edit", WORDED, ids=lambda edit: edit.attribute)
def test_the_attribute_recognises_every_wording(edit: TextEdit) -> None:
    one = MEASURES[edit.attribute]
    for wording in edit.wordings:
        assert one.measure("", wording.text) > 0, wording.text
        for answer in ANSWERS:
            without, having = present(wording.contrast("", answer))
            assert without == answer
            assert wording.text in having
            assert one.measure("", having) > one.measure("", without), (wording.text, answer)


@pytest.mark.parametrize("edit", WORDED, ids=lambda edit: edit.attribute)
def test_wordings_are_of_other_words(edit: TextEdit) -> None:
    for one, other in combinations(edit.wordings, 2):
        assert one.text not in other.text
        own, others = set(words(one.text)), set(words(other.text))
        assert len(own & others) <= 0.35 * len(own | others), (one.text, other.text)


def test_an_edit_of_one_wording_alone_is_what_it_was_before_there_were_several() -> None:
    (closing,) = (one for one in WORDED if one.attribute == "closing")
    first = closing.worded(0)
    assert first.wordings == ()
    assert first.words == '"Let me know if you need anything else!" behind the answer'
    assert first.contrast("", "It boils.") == ("It boils.", f"It boils. {OFFERS[0]}")
    assert first.worded(0) is first


@pytest.mark.parametrize(
    ("answers", "prompts", "wordings", "each"),
    [
        (400, 200, 6, 1),  # 66 sets
        (200, 200, 6, 1),
        (100, 50, 6, 2),
        (60, 30, 6, 3),  # a set for every prompt
        (20, 20, 6, 6),
        (160, 10, 6, 1),  # each prompt has answers for all wordings
        (1, 1, 5, 5),
        (400, 200, 1, 1),
    ],
)
def test_answers_get_as_few_wordings_as_thirty_sets_need(
    answers: int, prompts: int, wordings: int, each: int
) -> None:
    assert wordings_each(answers, prompts, wordings) == each


@pytest.mark.parametrize("each", [1, 2, 3, 6])
def test_every_run_of_answers_has_every_wording_once(each: int) -> None:
    drawn = drawn_wordings(40, 6, each, np.random.default_rng(0))
    assert drawn.shape == (40, each)
    runs = drawn.ravel()[: 40 * each // 6 * 6].reshape(-1, 6)
    assert (np.sort(runs, axis=1) == np.arange(6)).all()
    assert all(len(set(row)) == each for row in drawn.tolist())
    # pairs: neither side of them has a wording of its own
    first = drawn_wordings(2400, 6, 1, np.random.default_rng(1))[::2, 0]
    assert np.bincount(first, minlength=6) == pytest.approx([200] * 6, abs=50)


@pytest.mark.parametrize("seed", range(20))
def test_a_set_has_every_wording_and_shares_no_prompt(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, size=80)
    prompt = np.repeat(np.arange(80), counts)
    wording = drawn_wordings(len(prompt), 6, 1, rng)[:, 0]
    kept = rng.random(80)[prompt] < 0.6  # a half, as a mend takes it
    for own, which in ((prompt, wording), (prompt[kept], wording[kept])):
        sets = sets_of(own, which)
        table = means_of_sets(np.ones(len(own)), which, sets)
        assert table.shape == (sets.max() + 1, len(set(which.tolist())))
        assert (table == 1.0).all()  # no cell is empty
        placed = set(zip(own.tolist(), sets.tolist(), strict=True))
        assert len(placed) == len(set(own.tolist()))
    assert sets_of(prompt, wording).max() + 1 >= 0.6 * len(prompt) / 6


def test_sets_of_pairs_are_three_prompts() -> None:
    prompt = np.repeat(np.arange(198), 2)
    wording = drawn_wordings(396, 6, 1, np.random.default_rng(3))[:, 0]
    assert (sets_of(prompt, wording) == prompt // 3).all()


def test_the_test_of_differences_is_friedmans() -> None:
    """Beside scipy's, with ties and without."""
    rng = np.random.default_rng(4)
    for values in (rng.normal(size=(25, 6)), rng.integers(0, 3, size=(40, 4)).astype(float)):
        assert differ_p(values) == pytest.approx(friedmanchisquare(*values.T).pvalue, rel=1e-9)
    assert differ_p(np.ones((20, 6))) == 1.0
    assert math.isnan(differ_p(np.ones((20, 1))))


def reward(text: str, prices: Sequence[float]) -> float:
    """What an answer is worth: a whole number for itself, and so much for each wording in it."""
    own = sum(map(ord, text.split(".")[0])) % 4
    return own + sum(price for offer, price in zip(OFFERS, prices, strict=True) if offer in text)


def audited(
    prices: Sequence[float],
    *,
    prompts: int = 120,
    edit: TextEdit = CLOSING,
    attributes: Sequence[str | Attribute] = ("closing",),
    **more: Any,
) -> Audit:
    """The audit of a program that pays such prices, on pairs that offer no help."""
    keys = [(f"What is {n}?", text) for n in range(prompts) for text in (f"It is {n}.", f"Not {n}.")]
    made = [
        (prompt, text)
        for prompt, answer in keys
        for one in edit.wordings
        for text in present(one.contrast(prompt, answer))
    ]
    place = {key: n for n, key in enumerate(dict.fromkeys([*keys, *made]))}
    values = np.array([reward(text, prices) for _, text in place])
    rm = load(BENCHMARKS / "known_rewards.py").Known(place, values)
    rows = [
        Row(Path("made.jsonl"), n, {}, "pair", one[0], chosen=(one[1],), rejected=(other[1],))
        for n, (one, other) in enumerate(zip(keys[::2], keys[1::2], strict=True), 1)
    ]
    data = ScoredRows(rows, rm.score(*zip(*keys, strict=True)))
    return audit(rm, data, attributes=attributes, edits=[edit], **more)


ONE = (0.0, 0.0, 3.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("prompts", "more"), [(120, {}), (120, {"all_wordings": True}), (20, {}), (300, {"most": 60})]
)
def test_oracle_of_one_wording_in_six_the_mean_is_a_sixth_and_the_wording_is_named(
    prompts: int, more: dict[str, Any]
) -> None:
    found = audited(ONE, prompts=prompts, **more)
    sd = found.table.reward_sd
    (closing,) = found.findings
    causal = present(closing.best_causal)
    assert causal.sd == pytest.approx(0.5 / sd)
    assert (causal.low, causal.high) == pytest.approx((0.5 / sd, 0.5 / sd))
    assert causal.n == min(prompts, more.get("most", prompts))
    assert [one.sd for one in causal.wordings] == pytest.approx([price / sd for price in ONE])
    assert [one.text for one in causal.wordings] == list(OFFERS)
    third = causal.wordings[2]
    assert third.low == third.high == pytest.approx(3 / sd)
    assert third.q <= 0.05
    assert present(causal.rest).sd == 0.0
    assert closing.wordings_differ
    assert closing.one_wording == third
    assert [one.attribute.name for one in found.headlines] == ["closing"]
    said = " ".join(audit_text(found).split())
    assert (
        f"It pays for one wording of an offer of more help at the end: {third.sd:+.2f} SD "
        f'[{third.sd:+.2f}, {third.sd:+.2f}] for "{OFFERS[2]}" behind the answer' in said
    )
    assert "not for the kind: the other 5 wordings together are worth +0.00 SD" in said
    (example,) = found.examples
    assert example.edit == third.edit
    assert example.having.endswith(OFFERS[2])
    assert example.sd == pytest.approx(3 / sd)


def test_metamorphic_equal_payment_for_all_is_no_difference_and_a_headline_of_the_kind() -> None:
    found = audited((2.0,) * 6)
    (closing,) = found.findings
    causal = present(closing.best_causal)
    assert causal.differ_p == 1.0
    assert not closing.wordings_differ
    assert closing.one_wording is None
    assert closing.unwanted
    assert [one.sd for one in causal.wordings] == pytest.approx([causal.sd] * 6)
    said = " ".join(audit_text(found).split())
    assert "It pays for an offer of more help at the end: " in said
    assert "of them; 40 sets of all wordings)" in said
    assert "apart by no more than chance" in said


def test_metamorphic_every_wording_on_every_answer_has_the_same_prices() -> None:
    prices = (2.0, 0.0, 1.0, 1.0, -1.0, 3.0)
    found = [audited(prices), audited(prices, all_wordings=True)]
    few, every = (present(one.findings[0].best_causal) for one in found)
    assert few.sd == pytest.approx(every.sd)
    assert [one.sd for one in few.wordings] == pytest.approx([one.sd for one in every.wordings])
    assert (few.answers, every.answers) == (240, 6 * 240)
    assert (few.sets, every.sets) == (40, 120)
    assert few.differ_p < 1e-3


def test_metamorphic_the_order_of_wordings_decides_nothing() -> None:
    prices = (2.0, 0.0, 1.0, 1.0, -1.0, 3.0)
    other = added_behind("closing", OFFERS[::-1], closing_offer, kind="offers of help")
    one, two = audited(prices), audited(prices, edit=other)
    first, second = (present(each.findings[0].best_causal) for each in (one, two))
    assert first.edit == second.edit
    assert first[2:9] == pytest.approx(second[2:9])
    assert first.differ_p == pytest.approx(second.differ_p)
    assert {each.text: each.sd for each in first.wordings} == pytest.approx(
        {each.text: each.sd for each in second.wordings}
    )
    assert [each.texts for each in one.contrasts] == [each.texts for each in two.contrasts]


def test_a_wording_is_a_headline_where_the_mean_of_all_is_nothing() -> None:
    found = audited((1.0, -1.0, 0.0, 0.0, 0.0, 0.0))
    (closing,) = found.findings
    assert present(closing.best_causal).sd == 0.0
    assert not closing.sure
    assert present(closing.one_wording).text == OFFERS[0]
    assert closing.unwanted
    assert found.as_json()["headlines"] == ["closing"]


def test_two_paid_wordings_are_a_headline_of_the_kind_with_its_range() -> None:
    found = audited((3.0, 3.0, 0.0, 0.0, 0.0, 0.0))
    (closing,) = found.findings
    assert closing.one_wording is None
    assert len(closing.paid_wordings) == 2
    said = " ".join(audit_text(found).split())
    assert "Its 6 wordings are worth +0.00 SD (" in said
    assert "apart by more than chance" in said


def test_where_nothing_is_paid_wordings_that_differ_are_said() -> None:
    found = audited((0.0, -3.0, 0.0, 0.0, 0.0, 0.0))
    assert not found.headlines
    said = " ".join(audit_text(found).split())
    assert "For an offer of more help at the end it depends on the wording: " in said


def test_the_page_names_the_wording_and_lists_all() -> None:
    found = audited(ONE)
    about = {"model": "m", "head": "h", "data": ["made.jsonl"], "certificate": []}
    page = audit_page({**found.as_json(), **about})
    assert page.verdict == "This reward model pays for one wording of an offer of more help at the end."
    (section,) = (one for one in page.sections if one.title == "Wordings")
    assert section.finding.startswith(
        "The wording matters for 1 attribute of 1: an offer of more help at the end 0.00 to +"
    )
    assert section.finding.endswith(f'most for "{OFFERS[2]}" behind the answer.')
    assert all(offer in str(section.blocks) for offer in OFFERS)


def test_what_is_paid_for_and_no_style_is_no_headline_and_is_said_all_the_same() -> None:
    """A page that called the price of broken endings a null result would reassure wrongly."""
    asked = replace(MEASURES["closing"], style=False)
    found = audited((1.0,) * 6, attributes=[asked])
    assert (found.headlines, [one.attribute.name for one in found.content]) == ((), ["closing"])
    said = " ".join(audit_text(found).split())
    assert "It pays for an offer of more help at the end, which is no matter of style: +" in said
    about = {"model": "m", "head": "h", "data": ["made.jsonl"], "certificate": []}
    content = {**found.as_json(), **about}
    page = audit_page(content)
    assert page.verdict == (
        "No style is paid for as far as this audit can tell, but this is: an offer of more help at the end."
    )
    assert page.lead[0].startswith(
        "With an offer of more help at the end the reward is higher in 100 % of prompts"
    )
    assert not any("mend" in one for one in page.lead)
    # a file of an earlier version does not say it
    assert audit_page({key: value for key, value in content.items() if key != "content"}).verdict.endswith(
        "a null result."
    )
    # nothing of the kind where nothing is paid
    assert audited((0.0,) * 6, attributes=[asked]).content == ()


def test_changes_between_two_models_are_of_the_mean_over_wordings() -> None:
    old, new = audited(ONE), audited((0.0,) * 6)
    change = present(price_changes(new, old).of("closing"))
    assert change.change == pytest.approx(-0.5 / old.table.reward_sd)
    assert change.sure


def contrast_of(prompts: int, each: int, rng: np.random.Generator) -> ScoredContrast:
    prompt = np.repeat(np.arange(prompts), each)
    wording = drawn_wordings(len(prompt), 6, 1, rng)[:, 0]
    return ScoredContrast(CLOSING, prompt, (), UNREAD, UNREAD, wording)


@pytest.mark.parametrize(("prompts", "each"), [(60, 2), (90, 1), (20, 8)])
def test_property_intervals_of_the_mean_cover_and_equal_wordings_are_rarely_called_different(
    prompts: int, each: int
) -> None:
    """Prompts that like or dislike whatever is put in, and errors of unequal size."""
    covered, called = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        made = contrast_of(prompts, each, rng)
        wording = present(made.wording)
        own = rng.normal(size=prompts)[made.prompt] + rng.normal(size=len(wording)) * (1 + made.prompt % 3)
        price = price_from(made, own + wording / 5)
        covered += price.low <= 0.5 <= price.high
        called += differ_p(made.by_wording(own)) <= 0.05
    assert binom.cdf(covered, 300, 0.95) > 0.001, covered
    assert binom.sf(called - 1, 300, 0.05) > 0.001, called


@pytest.mark.long
def test_where_no_wording_is_paid_for_hardly_an_audit_has_a_headline() -> None:
    """150 audits of seven attributes with six wordings each, whose prompts like or dislike any of them."""
    one = Attribute("a", "a", lambda *_: 0.0)
    with_one, called = 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        prices = []
        for number in range(7):
            prompts = (200, 100, 30)[number % 3]
            made = contrast_of(prompts, 2, rng)
            own = rng.normal(size=prompts)[made.prompt] + rng.standard_t(3, size=len(made.prompt))
            prices.append(worded_price(made, own))
        found = [AttributeFinding(one, {}, None, (price,)) for price in corrected(prices)]
        with_one += any(each.unwanted for each in found)
        called += any(each.wordings_differ for each in found)
    assert binom.sf(with_one - 1, 150, 0.05) > 0.001, with_one
    assert binom.sf(called - 1, 150, 0.05) > 0.001, called


def test_a_part_of_the_prompts_has_sets_of_its_own() -> None:
    scored = audited(ONE).contrasts[0]
    half = scored.of(scored.prompt % 2 == 0)
    assert len(present(half.wording)) == len(half.prompt)
    price = price_from(half, half.change)
    assert price.sd == pytest.approx(0.5)
    assert price.n == len(set(half.prompt.tolist()))


def test_one_family_holds_the_false_finds_of_edits_and_wordings() -> None:
    causal = present(audited(ONE).findings[0].best_causal)
    alone = causal._replace(wordings=(), differ_p=math.nan, p=0.03)
    tested = corrected([causal, alone])
    p = [causal.p, *(one.p for one in causal.wordings), 0.03]
    q = [tested[0].q, *(one.q for one in tested[0].wordings), tested[1].q]
    assert q == pytest.approx(benjamini_hochberg(np.array(p)).tolist())
    assert tested[0].differ_q == pytest.approx(causal.differ_p)
    assert math.isnan(tested[1].differ_q)


def test_a_surer_interval_is_wider_and_needs_more_numbers() -> None:
    values = np.arange(1.0, 31.0)
    low, high = median_interval(values)
    wider = median_interval(values, 1 - 0.05 / 6)
    assert wider[0] < low < high < wider[1]
    assert median_interval(values[:7], 1 - 0.05 / 6) == (-math.inf, math.inf)


def test_a_count_can_be_added_to_whoever_has_it() -> None:
    edit = added_behind("hedging", ["Perhaps.", "Maybe so."], never)
    assert edit.words == "one of 2 texts behind the answer"
    assert edit.contrast("", "Perhaps it is.") == ("Perhaps it is.", "Perhaps it is. Perhaps.")
    assert added_behind("hedging", ["Perhaps."], never).wordings == ()


def test_an_attribute_of_ones_own_may_have_wordings() -> None:
    edit = added_behind("thanks", ["Thank you.", "Many thanks."], lambda _, answer: float("hank" in answer))
    one = Attribute("thanks", "thanks", lambda _, answer: float("hank" in answer))
    for wording in edit.wordings:
        _, having = present(wording.contrast("", "It boils."))
        assert one.measure("", having) == 1.0
