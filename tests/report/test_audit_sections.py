"""Property: what an audit found nothing in is said in a sentence, and nothing is said that was not asked."""

from typing import Any

import pytest

from sarm_control.pages import TokenLine
from sarm_control.report import audit_page
from sarm_control.report.audit_sections import (
    accuracy_sections,
    before_sections,
    example_sections,
    run_sections,
)

CLOSING = {"name": "closing", "words": "a boilerplate closing", "style": True, "latents": []}


def change(low: float, high: float, *, sure: bool) -> dict[str, Any]:
    ends = {"change": (low + high) / 2, "low": low, "high": high}
    return {
        "name": "closing",
        "kind": "causal",
        "old": 0.1,
        "new": 0.4,
        **ends,
        "q": 0.01,
        "n": 40,
        "sure": sure,
    }


def moved(verdict: str, certified: str | None, *, broken: bool) -> dict[str, Any]:
    ends = {"before": 0.1, "after": 0.3, "change": 0.2, "low": -0.1, "high": 0.5}
    said = {"verdict": verdict, "certified": certified, "broken": broken}
    return {"name": "closing", **ends, **said, "first": 30, "last": 31}


def test_what_was_not_asked_has_no_part() -> None:
    nothing: dict[str, Any] = {"attributes": [CLOSING], "examples": [], "before": None, "run": None}
    assert [*example_sections(nothing, {}), *before_sections(nothing), *run_sections(nothing)] == []
    # an audit of an earlier version has none of the keys
    assert [*accuracy_sections({"attributes": []}), *run_sections({"attributes": []})] == []


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ([], "No attribute has a price in both models: nothing can be compared."),
        ([change(-0.1, 0.2, sure=False)], "No price of 1 changed by more than chance: a null result."),
        (
            [change(0.2, 0.4, sure=True)],
            "1 price of 1 changed by more than chance: a boilerplate closing +0.30 SD.",
        ),
    ],
)
def test_changes_of_prices_in_one_sentence(changes: list[dict[str, Any]], finding: str) -> None:
    (section,) = before_sections({"attributes": [CLOSING], "before": {"model": "old", "changes": changes}})
    assert (section.title, section.finding) == ("Against old", finding)
    assert bool(section.blocks) == bool(changes)


@pytest.mark.parametrize(
    ("movement", "finding"),
    [
        (
            moved("not shown", None, broken=False),
            "No attribute is seen to move, which is a null result and no proof (30 samples against 31).",
        ),
        (
            moved("moves up", "still", broken=True),
            "Moved: a boilerplate closing up (30 samples against 31). The certificate did not hold for "
            "a boilerplate closing.",
        ),
        (
            moved("still", "still", broken=False),
            "No attribute is seen to move, which is a null result and no proof (30 samples against 31). "
            "Nothing that was certified as still is seen to move.",
        ),
    ],
)
def test_a_run_in_one_sentence(movement: dict[str, Any], finding: str) -> None:
    found = {"attributes": [CLOSING], "run": {"run": "ours", "attributes": [movement], "missing": []}}
    (section,) = run_sections(found)
    assert (section.title, section.finding) == ("What the run ours did", finding)


def test_data_without_pairs_are_said_to_have_no_accuracy() -> None:
    (section,) = accuracy_sections({"attributes": [], "accuracy": None})
    assert section.finding == "Not measured: no row has chosen and rejected answers; pairs would tell."


def test_oracle_accuracy_as_chance_is_said_to_be_that() -> None:
    half = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 90}
    plain = {"column": None, "kinds": {}, "styles": {"hard": half}, "length_correlation": None}
    accuracy = {"pairs": half, **plain, "longer_preferred": half, "refused_when_it_should_answer": None}
    (section,) = accuracy_sections({"attributes": [], "accuracy": accuracy})
    assert section.finding == (
        "50 % [40, 60] of pairs are preferred rightly (n = 90 prompts), which chance, 50 %, would do too."
    )
    text = str(section.blocks)
    assert "Length alone does not decide" in text
    assert "style: hard" in text
    assert "no rejected answer refuses what the chosen one answers" in text


def test_oracle_tokens_are_drawn_on_one_scale() -> None:
    tokens = [
        [{"token": "a", "reward": -0.5, "trained": False}, {"token": "b", "reward": 0.25, "trained": True}],
        [{"token": "a", "reward": 1.0, "trained": True}],
    ]
    example = {
        "attribute": "closing",
        "edit": "it behind",
        "prompt": "p",
        "sd": -0.3,
        "label": "only the last",
    }
    example |= {"tokens_without": tokens[0], "tokens_having": tokens[1]}
    (section,) = example_sections({"attributes": [CLOSING], "examples": [example]}, {})
    lines = [block for block in section.blocks if isinstance(block, TokenLine)]
    assert [line.height(token) for line in lines for token in line.tokens] == [10, 5, 20]
    assert [(line.rises, line.falls) for line in lines] == [(True, True), (True, False)]
    assert lines[0].caption == "Reward 0.25."
    said = f"Changed: it behind. With {CLOSING['words']} the reward is 0.30 SD lower. No latent is known"
    assert said in str(section.blocks[0])


def test_an_example_of_an_edit_that_takes_away_says_what_having_it_is_worth() -> None:
    headers = {**CLOSING, "name": "headers", "words": "headings"}
    example = {
        "attribute": "headers",
        "edit": "headings as plain lines",
        "prompt": "p",
        "sd": 0.3,
        "label": "",
    }
    example |= {"tokens_without": [], "tokens_having": []}
    (section,) = example_sections({"attributes": [headers], "examples": [example]}, {})
    assert "With headings the reward is 0.30 SD higher." in str(section.blocks[0])


def test_an_edit_that_takes_an_attribute_away_has_the_price_of_having_it() -> None:
    price = {"sd": 0.5, "low": 0.25, "high": 0.75, "p": 0.01, "q": 0.01, "n": 40, "rises": 0.9, "answers": 40}
    one = {"name": "bold", "words": "bold text", "unit": "item", "style": True, "price": 0.5, "rate": {}}
    one |= {"sure": True, "disagree": False, "causal": {**price, "edit": "bold taken off", "latents": []}}
    found = {
        "attributes": [one],
        "headlines": ["bold"],
        **{"model": "m", "head": "h", "data": ["d"], "answers": 80, "prompts": 40, "reward_sd": 1.0},
    }
    assert audit_page(found).lead[0] == (
        "With bold text the reward is higher in 90 % of prompts (bold taken off): "
        "+0.50 [+0.25, +0.75] SD, n = 40."
    )
