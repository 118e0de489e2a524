"""scripts/real_audit*.py: what is planted (property), and a price that is known by construction (oracle)."""

import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sarm_control.auditing.attributes.added_texts import OFFERS
from tests.outside import load

SCRIPTS = Path(__file__).parents[2] / "scripts"
WORDS = [f"word{j}" for j in range(40)]


@pytest.fixture(scope="module")
def script() -> Any:
    """The modules of the script, which stand outside the package."""

    def module(name: str) -> ModuleType:
        return load(SCRIPTS / f"real_audit_{name}.py")

    return module


def test_planted_offers_are_in_other_words_than_all_of_the_audits(script: Any) -> None:
    planted = script("planted")
    assert not set(planted.OFFERS) & set(OFFERS)
    (closing,) = (one for one in planted.first_wordings() if one.words.startswith('"Let me know'))
    assert closing.wordings == ()


def rows_of(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {"prompt": f"prompt {j}", **{side: rng.choices(WORDS, k=30) for side in ("chosen", "rejected")}}
        for j in range(count)
    ]


def test_a_share_of_none_favours_neither_side_and_larger_shares_hold_the_smaller(script: Any) -> None:
    planted = script("planted")
    before = np.zeros(300, dtype=bool)
    for share in planted.SHARES:
        chosen, rejected = planted.favoured(np.arange(300), share)
        assert (chosen.sum(), rejected.sum()) == (30 + round(300 * share), 30)
        assert not (chosen & rejected).any()
        assert (chosen | ~before).all()
        before = chosen


def test_answers_differ_in_the_plant_alone(script: Any) -> None:
    planted = script("planted")
    rows = rows_of(40)
    for name, plant in planted.PLANTS.items():
        found = planted.material(rows, plant, 20)
        assert (sum(one for one, _ in found.audit_has), sum(one for _, one in found.audit_has)) == (2, 2)
        assert not any(first and second for first, second in found.audit_has)
        for plain, put in zip(found.plain, found.planted, strict=True):
            for (prompt, without), (same, having) in zip(plain, put, strict=True):
                assert prompt == same
                assert without != having
                if name.startswith("closing"):
                    assert having.startswith(f"{without} ")


def states_of(keys: list[tuple[str, str]], words: tuple[str, ...] = ("Let me know",)) -> Any:
    """States of chance but for the first dimension, which says whether a text has one of the words."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((len(keys), 6))
    states[:, 0] = [8.0 * any(one in text for one in words) for _, text in keys]
    place = {key: n for n, key in enumerate(keys)}
    return SimpleNamespace(
        place=place, all=states, rows=lambda asked: np.array([place[key] for key in asked])
    )


def test_oracle_an_audit_finds_what_is_planted_and_its_price_rises_with_the_share(script: Any) -> None:
    planted = script("planted")
    sizes = planted.Sizes(training=80, fitted=70, audited=30, draws=1, prompts=120)
    found = planted.material(rows_of(120), planted.PLANTS["closing"], sizes.training)
    states = states_of(sorted(set(planted.texts(found, sizes.training))))
    said = planted.one_draw(planted.Trial("closing", found, sizes, states), 0)
    prices = [one["price"] for one in said]
    assert prices == sorted(prices)
    assert abs(prices[0]) < 0.5 < prices[-1]
    for one in said:
        # the edit puts the planted sentence behind answers, so both measure the same on other answers
        assert one["price"] == pytest.approx(one["pays"], abs=0.35)
    assert "closing" in said[-1]["headlines"]
    counts = planted.summary(said)["closing"]
    assert (counts["draws"], counts["monotone"]["count"]) == (1, 1)
    text = script("tables").planted_text({"plants": {"closing": counts}})
    assert "| closing | 50 % |" in text


@pytest.mark.parametrize("whole", [True, False])
def test_oracle_heads_that_pay_for_one_offer_or_for_all_are_told_apart_with_all_wordings(
    script: Any, whole: bool
) -> None:
    planted, wordings = script("planted"), script("wordings")
    sizes = planted.Sizes(training=80, fitted=70, audited=30, draws=1, prompts=120)
    found = planted.material(rows_of(120), planted.PLANTS["closing"], sizes.training)
    keys = sorted(set(wordings.texts(found, sizes.training)))
    states = states_of(keys, OFFERS if whole else OFFERS[:1])
    (way,) = (name for name, every in wordings.WAYS.items() if every)
    said = wordings.one_draw(planted.Trial("closing", found, sizes, states), 0, {way: True})
    last = said[-1]
    # the head's own prices, of texts that are the same but for the offer
    paid = [last["paid_each"][text] for text in OFFERS]
    assert min(paid) > 0.5 if whole else max(map(abs, paid[1:])) < 0.5 < paid[0]
    assert (last["kind"], last["wording"], last["differ"]) == (whole, None if whole else OFFERS[0], not whole)
    assert last["price"] == pytest.approx(last["paid"], abs=0.35)
    counts = wordings.summary(said)
    one = counts[way]["closing"]["shares"][-1]
    assert (one["headline"]["count"], one["true"]) == (1, 1)
    assert (one["of_the_kind"]["count"], one["of_one_wording"]["count"]) == (int(whole), int(not whole))
    text = script("tables").wordings_text({"audits": counts, "first_wording": {}}, None)
    assert f"| closing | 50 % | {way} |" in text


def test_passes_that_share_answers_give_the_same_states_up_to_rounding(script: Any) -> None:
    from sarm_control import RewardModel
    from sarm_control.embedded import LAB

    rm, shared = RewardModel.from_pretrained(LAB, device="cpu"), script("states").SharedAnswers
    prompts = ["how do i bake bread ?"] * 6 + ["why is the sky blue ?"] * 3
    answers = [
        f"{start} {end} ." for start in ("mix flour and water", "use an oven", "light") for end in "abc"
    ]
    whole, parts = (
        one.score(prompts, answers, keep_states=True, prefix_reuse=True) for one in (rm, shared(rm))
    )
    assert parts.states is not None
    assert whole.states is not None
    np.testing.assert_allclose(parts.states, whole.states, atol=1e-4)


def test_runs_of_texts_that_begin_alike_are_found(script: Any) -> None:
    from sarm_control.conversation import Encoded

    ids = [[1, 2, 3, 4, end, 9] for end in (5, 6, 7)] + [[1, 2, 8, 8, 8, 8, end, 9] for end in (5, 6)]
    found = script("states").with_beginnings([Encoded(one, 2, 0, True) for one in ids])
    assert [one.input_ids for one in found] == ids
    assert [one.prompt_length for one in found] == [4, 4, 4, 6, 6]


def test_guards_of_styles_are_the_nine_pairs_of_a_row_once_each(script: Any) -> None:
    mend = script("mend")
    row = {"prompt": "p", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"]}
    guards = mend.guards([row])
    pairs = {
        name: [(one["chosen"][0], one["rejected"][0]) for one in guards[name]]
        for name in ("hard", "normal", "easy")
    }
    assert pairs["hard"] == [("c0", "r1"), ("c0", "r2"), ("c1", "r2")]
    assert len({pair for part in pairs.values() for pair in part}) == 9


def test_halves_share_no_prompt(script: Any) -> None:
    mend = script("mend")
    rows = [{"prompt": text} for text in ("a", "A ", "b", "c", "d", "e")]
    halves = mend.halves(rows)
    prompts = [{one["prompt"].strip().lower() for one in part} for part in halves.values()]
    assert not prompts[0] & prompts[1]
    assert sum(map(len, halves.values())) == 6


def test_states_that_a_file_has_are_not_computed_again(script: Any, tmp_path: Path) -> None:
    states = script("states")

    class Lengths:
        def score(self, prompts: Any, answers: Any, **_: Any) -> Any:
            made = [[len(one), len(other)] for one, other in zip(prompts, answers, strict=True)]
            return SimpleNamespace(states=np.array(made, dtype=np.float32))

    keys = [("p", "a"), ("p", "bb"), ("pp", "ccc")]
    states.States(tmp_path, Lengths).need(keys)

    def refuse() -> Any:
        raise AssertionError("nothing is left to compute")

    again = states.States(tmp_path, refuse)
    again.need(keys)
    assert again.all[again.rows([("pp", "ccc")])].tolist() == [[2.0, 3.0]]
