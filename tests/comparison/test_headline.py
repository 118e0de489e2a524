"""The headline and the numbers in it: golden wording, property (null stays null)."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarm_control.comparison.headline import change_in_words, headline, verdict
from sarm_control.statistics.formatting import bracket, decimals, fixed, short

finite = st.floats(-1e3, 1e3).map(lambda value: round(value, 6))


def interval(mean: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "n": 40}


@pytest.mark.parametrize(
    ("given_interval", "said"),
    [
        (interval(0.5, 0.1, 0.9), "rose"),
        (interval(-0.5, -0.9, -0.1), "fell"),
        (interval(0.5, -0.1, 0.9), "no clear change"),
        (interval(0.5, 0.0, 0.9), "no clear change"),
        (interval(0.5, None, None), "too few prompts to tell"),
    ],
)
def test_golden_verdicts(given_interval: dict[str, Any], said: str) -> None:
    assert verdict(given_interval) == said


@settings(deadline=None, max_examples=40)
@given(finite, finite, finite)
def test_property_a_change_is_claimed_only_when_the_interval_leaves_out_zero(
    mean: float, one: float, two: float
) -> None:
    low, high = sorted((one, two))
    text = change_in_words(interval(mean, low, high), unit="nats")
    assert ("no clear change" in text) == (low <= 0 <= high)


def test_golden_words() -> None:
    assert (
        change_in_words(interval(0.5, None, None), unit="SD")
        == "changes by +0.500 SD (too few prompts to tell)"
    )
    assert change_in_words(interval(0.0, None, None), unit="SD") == "does not change"
    assert change_in_words(interval(0.123, 0.05, 0.19), unit="SD") == "rose by 0.123 SD [0.050, 0.190]"
    assert (
        change_in_words(interval(-0.2, -0.3, -0.1), unit="points", scale=100) == "fell by 20 points [10, 30]"
    )
    null = change_in_words(interval(0.02, -0.4, 0.5), after=", +0.10 SD")
    assert null == "shows no clear change (+0.02 [\u22120.40, +0.50], +0.10 SD)"


def test_golden_numbers() -> None:
    assert fixed(-0.00004, 3) == "0.000"
    assert fixed(-1.25, 1) == "\u22121.2"
    assert fixed(2.5, 1, sign=True) == "+2.5"
    assert fixed(None, 2) == "\u2013"
    assert bracket(interval(0.0, None, None), 2) == ""
    assert [short(value) for value in (0.0, 0.0465, -12.0, 1e-7)] == [
        "0",
        "0.0465",
        "\u221212",
        "1.00e\u221207",
    ]


@settings(deadline=None, max_examples=100)
@given(st.floats(-7, 7).map(lambda power: 10**power), st.sampled_from([1, -1]))
def test_property_a_short_number_is_right_to_three_digits_and_plain_where_that_is_readable(
    size: float, sign: int
) -> None:
    shown = short(sign * size)
    assert float(shown.replace("\u2212", "-")) == pytest.approx(sign * size, rel=0.0051)
    assert ("e" in shown) == (not 1e-5 <= size < 1e6)
    digits = shown.partition("e")[0].replace(".", "").lstrip("\u22120")
    assert len(digits) <= max(3, len(str(int(size))))


@settings(deadline=None, max_examples=40)
@given(finite, st.floats(1e-6, 1e3))
def test_property_decimals_leave_two_significant_digits_of_the_half_width(mean: float, half: float) -> None:
    digits = decimals(interval(mean, mean - half, mean + half))
    assert 0 <= digits <= 8
    if half < 9.9:
        assert half * 10**digits >= 9.9


def arm(
    name: str, controls: list[str], controlled: list[int], changes: list[tuple[str, str, dict[str, Any]]]
) -> dict[str, Any]:
    measures = [
        {"key": key, "label": label, "change": change, "trained": change, "base": None}
        for key, label, change in changes
    ]
    return {
        "name": name, "controls": controls, "controlled": controlled, "reward_sd": 0.5, "measures": measures,
    }  # fmt: skip


def changes(reward: dict[str, Any], rate: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        ("reward/model", "Reward, unedited", reward),
        ("latent/3/rate", "Latent 3 active", rate),
        ("objective/kl", "KL", interval(2.0, 1.5, 2.5)),
        ("answer/length", "Answer length", interval(0.0, -1.0, 1.0)),
    ]


def test_golden_sentences_set_controls_against_the_free_arm() -> None:
    free = arm("none", [], [], changes(interval(1.0, 0.5, 1.5), interval(0.3, 0.2, 0.4)))
    held = arm("held", ["penalty"], [3], changes(interval(0.9, 0.4, 1.4), interval(0.1, 0.05, 0.15)))
    between = [
        {"key": key, "change": change}
        for key, _, change in changes(interval(-0.1, -0.6, 0.4), interval(-0.2, -0.3, -0.1))
    ]
    report = {"arms": [free, held], "differences": [{"from": "none", "to": "held", "measures": between}]}
    first, second = headline(report)
    assert first.startswith(
        "no control against the base policy: the unedited reward rose by 1.00 [0.50, 1.50], +2.00 SD"
    )
    assert second.startswith(
        "held against no control: the share of answers with latent 3 active fell by 20 points [10, 30]; "
        "the unedited reward shows no clear change (\u22120.10 [\u22120.60, +0.40], \u22120.20 SD)"
    )


def test_golden_a_lone_controlled_arm_is_set_against_the_base() -> None:
    held = arm("held", ["penalty"], [3], changes(interval(0.9, 0.4, 1.4), interval(0.1, -0.05, 0.15)))
    (sentence,) = headline({"arms": [held], "differences": []})
    assert sentence.startswith(
        "held against the base policy: the share of answers with latent 3 active shows no"
    )
    assert "KL to the base is 2.00 nats [1.50, 2.50]" in sentence


def test_property_the_direction_in_which_a_pair_is_given_makes_no_difference() -> None:
    free = arm("none", [], [], changes(interval(1.0, 0.5, 1.5), interval(0.3, 0.2, 0.4)))
    held = arm("held", ["penalty"], [3], changes(interval(0.9, 0.4, 1.4), interval(0.1, 0.05, 0.15)))
    there = changes(interval(-0.1, -0.6, 0.4), interval(-0.2, -0.3, -0.1))
    back = changes(interval(0.1, -0.4, 0.6), interval(0.2, 0.1, 0.3))
    back[2] = (*back[2][:2], interval(-2.0, -2.5, -1.5))
    pages = [
        headline(
            {
                "arms": arms,
                "differences": [
                    {"from": one, "to": two, "measures": [{"key": k, "change": c} for k, _, c in rows]}
                ],
            }
        )
        for arms, one, two, rows in (
            ([free, held], "none", "held", there),
            ([held, free], "held", "none", back),
        )
    ]
    assert pages[0] == pages[1][::-1]
