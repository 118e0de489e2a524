"""Planted tastes are found with their sign and size (oracle: the annotators are programs), and mended.

What is planted is what the panel of annotators likes; the reward model has learnt it from their choices.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from sarm_control.auditing import Audit, Mend, audit, audit_text, mend, mendable, unwanted
from sarm_control.auditing.mending.halves import fitting_half
from sarm_control.data import Row, read_rows
from sarm_control.errors import DataError
from sarm_control.lab import World, lab_attributes, shipped_audit
from sarm_control.lab.judges.annotators import panel, utility
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel


@pytest.fixture(scope="module")
def world() -> World:
    return World.open("lab")


@pytest.fixture(scope="module")
def rm() -> RewardModel:
    return RewardModel.from_pretrained("lab", device="cpu")


@pytest.fixture(scope="module")
def data(world: World, rm: RewardModel) -> ScoredRows:
    return shipped_audit(world, rm)


@pytest.fixture(scope="module")
def found(world: World, rm: RewardModel, data: ScoredRows) -> Audit:
    own = lab_attributes(world)
    return audit(rm, data, attributes=own.attributes, edits=own.edits)


@pytest.fixture(scope="module")
def mended(found: Audit, data: ScoredRows) -> Mend:
    return mend(found, data, ["flattery", "closing"])


def liking(world: World, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """What the panel likes each answer by, on the mean, in log-odds."""
    tastes = panel(world.seed)
    return np.array(
        [
            np.mean([utility(one, world.question(p), world.attributes(p, a)) for one in tastes])
            for p, a in zip(prompts, answers, strict=True)
        ]
    )


def true_prices(world: World, found: Audit) -> dict[str, float]:
    """What each text edit is worth to the panel, in SDs of its liking of the same answers."""
    table = found.table
    sd = liking(world, [table.prompts[n] for n in table.prompt], table.answers).std(ddof=1)
    prices = {}
    for one in found.contrasts:
        asked = [table.prompts[n] for n in one.prompt]
        without, having = zip(*one.texts, strict=True)
        change = (liking(world, asked, having) - liking(world, asked, without)) / sd
        _, place, counts = np.unique(one.prompt, return_inverse=True, return_counts=True)
        prices[one.edit.words] = float(np.median(np.bincount(place, change) / counts))
    return prices


def test_planted_tastes_have_their_sign_and_about_their_size(world: World, found: Audit) -> None:
    truth = true_prices(world, found)
    priced = {price.edit: price for one in found.findings for price in one.causal}
    planted = [words for words in truth if priced[words].attribute in ("flattery", "closing")]
    assert len(planted) == 6
    for words in planted:
        assert truth[words] > 0.6
        assert priced[words].low > 0.4  # found, and far from nothing
        # the reward model has learnt one of the two closings better than the other
        assert priced[words].sd == pytest.approx(truth[words], abs=0.3), words
    for name in ("flattery", "closing"):  # over the phrases the audit is within 15 % of the truth
        own = [words for words in planted if priced[words].attribute == name]
        told, true = (
            np.mean([values[words] for words in own])
            for values in ({words: priced[words].sd for words in own}, truth)
        )
        assert told == pytest.approx(true, rel=0.15), name
    for words in set(truth) - set(planted):  # what is worth little is priced little
        assert abs(truth[words]) < 0.15
        assert abs(priced[words].sd) < 0.2, words


def test_the_headlines_are_what_was_planted(found: Audit) -> None:
    names = [one.attribute.name for one in found.headlines]
    assert set(names) == set(unwanted(found)) == {"flattery", "closing"}
    # no edit of the text gives length alone: right answers are longer, and so is what is paid for
    assert [one.attribute.name for one in found.associations] == ["length"]
    assert set(mendable(found)) == {"flattery", "closing", "hedging", "detail"}
    flattery = next(one for one in found.findings if one.attribute.name == "flattery")
    assert flattery.best_causal is not None
    words = [found.latent_words.get(part.latent, "") for part in flattery.best_causal.carriers[:3]]
    phrases = " ".join(lab_phrases())
    assert any(word and word in phrases for word in words), words


def lab_phrases() -> tuple[str, ...]:
    language = World.open("lab").language
    return language.flattery + language.closings


@pytest.mark.long
def test_a_head_that_gold_chose_has_no_such_headline(world: World, rm: RewardModel, data: ScoredRows) -> None:
    """The same trunk and latents; only what the head rewards is another."""
    prompts = [row.prompt_key for row in data.rows for _ in row.answers]
    answers = [text for row in data.rows for text in row.answers]
    z = data.scored.latents.to_scipy().toarray().astype(float)
    wanted = world.gold(prompts, answers)
    weight, *_ = np.linalg.lstsq(z.T @ z + 0.1 * np.eye(z.shape[1]), z.T @ wanted, rcond=None)
    clean = rm.with_head(weight.astype(np.float32))
    own = lab_attributes(world)
    found = audit(
        clean, ScoredRows(data.rows, score_rows(clean, data.rows)), attributes=own.attributes, edits=own.edits
    )
    prices = {one.attribute.name: one for one in found.findings}
    # length comes along with right answers, and gold pays for those alone
    assert prices["length"].sure
    assert prices["length"].associated
    # these few latents take a detail for a part of the answer, so this head really pays for one
    assert [one.attribute.name for one in found.headlines] == ["detail"]
    for name in ("flattery", "closing"):
        assert prices[name].price < 0


def test_what_is_paid_for_in_one_wording_and_charged_in_another_has_no_price(
    found: Audit,
) -> None:
    """The trunk tells the phrases of a hedge apart, and the head likes one of them."""
    hedging = next(one for one in found.findings if one.attribute.name == "hedging")
    assert len({price.sd > 0 for price in hedging.causal if price.q < 0.01}) == 2
    assert hedging.contradicted
    assert not hedging.sure
    said = " ".join(audit_text(found).split())
    assert "For hedges it depends on the wording, so the attribute has no price: " in said
    assert "More reward comes with longer answers: " in said
    assert "No edit of the text says whether it is paid for, or comes along with better answers." in said


def test_a_mend_takes_the_planted_prices_away_and_gains_accuracy(mended: Mend) -> None:
    """Pairs of lab:audit are labelled by gold, which dislikes what was planted."""
    point = mended.outcome.chosen
    assert mended.recommended, mended.why
    assert point is not None
    assert point.guard is not None
    assert {one.attribute for one in point.left} == {"flattery", "closing"}
    for one in point.left:
        assert one.before.sd > 0.5
        assert abs(one.after.sd) < 0.4 * one.before.sd, one
    assert point.guard.after > point.guard.before + 0.1
    assert point.guard.flips.p < 1e-4
    strengths = [one.strength for one in mended.outcome.frontier]
    left = [one.worst for one in mended.outcome.frontier]
    assert strengths == sorted(strengths)
    assert left == sorted(left, reverse=True)
    assert {one.name for one in (mended.outcome, *mended.others)} == {
        "edits",
        "even",
        "regression",
        "length",
        "projection",
        "suppression",
    }
    by_name = {one.name: one for one in (mended.outcome, *mended.others)}
    for name in ("regression", "length"):  # they act on the answer's attributes, not on what is rewarded
        chosen = by_name[name].chosen
        assert chosen is not None
        assert chosen.worst > point.worst
    assert {one.name for one in mended.certificate} == {"length", "hedging", "detail", "refusal", "junk"}


@pytest.mark.long
def test_what_a_mend_leaves_is_what_scoring_again_gives(rm: RewardModel, found: Audit, mended: Mend) -> None:
    """The mended model scores texts of the judging half; no algebra of latents (oracle)."""
    assert all(edit.max is None for edit in mended.edits)
    point = mended.outcome.chosen
    assert point is not None
    contrast = next(one for one in found.contrasts if one.edit.words == point.left[0].edit)
    asked = [found.table.prompts[n] for n in contrast.prompt]
    without, having = zip(*contrast.texts, strict=True)
    with rm.edited(mended.edits) as edited:
        change = edited.score(asked, list(having)).rewards - edited.score(asked, list(without)).rewards
        prompts = [found.table.prompts[n] for n in found.table.prompt]
        rewards = edited.score(prompts, list(found.table.answers)).rewards.astype(float)
    judging = ~fitting_half(len(found.table.prompts), 0)
    kept = judging[contrast.prompt]
    _, place, counts = np.unique(contrast.prompt[kept], return_inverse=True, return_counts=True)
    sd = rewards[judging[found.table.prompt]].std(ddof=1)
    means = np.bincount(place, change[kept].astype(float)) / counts
    assert point.left[0].after.sd == pytest.approx(np.median(means) / sd, abs=2e-3)


@pytest.mark.long
def test_a_mend_that_costs_accuracy_is_refused(world: World, rm: RewardModel) -> None:
    """Labels of one who wants praise: whatever takes its price away turns pairs wrong."""
    praise = world.language.flattery[0]
    rows = []
    for row in read_rows(world.file("held_out_prompts"), want={"prompt"})[:120]:
        plain = world.language.details[0]
        rows.append(
            Row(
                Path("made.jsonl"),
                1,
                {},
                "pair",
                row.prompt,
                chosen=(f"{praise} {plain}",),
                rejected=(plain,),
            )
        )
    data = ScoredRows(rows, score_rows(rm, rows))
    own = lab_attributes(world)
    found = audit(rm, data, attributes=own.attributes, edits=own.edits)
    refused = mend(found, data, ["flattery"], guard_points=1.0)
    assert not refused.recommended
    full = refused.outcome.frontier[-1]
    assert full.guard is not None
    assert full.guard.cost > 1.0
    assert refused.outcome.strength < 1.0
    if refused.outcome.strength == 0.0:
        assert refused.edits == ()
        assert "every strength costs more than 1 points" in refused.why
    allowed = mend(found, data, ["flattery"], guard_points=100.0)
    assert allowed.outcome.strength == 1.0
    assert allowed.recommended


def test_a_prompt_of_elsewhere_is_refused_by_its_row(world: World, rm: RewardModel) -> None:
    rows = [Row(Path("made.jsonl"), 3, {}, "answer", "who are you ?", response="hello")]
    data = ScoredRows(rows, score_rows(rm, rows))
    with pytest.raises(
        DataError, match=r"made\.jsonl:3: the attribute length failed: no prompt of this world"
    ):
        audit(rm, data, attributes=lab_attributes(world).attributes, edits=())
