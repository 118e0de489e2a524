"""Numbers and intervals in words and on pages: golden, each written by hand."""

import math
from typing import Any

import pytest

from sarm_control.statistics.formatting import (
    bracket,
    counted,
    decimals,
    ends,
    fixed,
    for_terminal,
    interval,
    missing,
    number,
    percent,
    short,
    with_ends,
)
from sarm_control.statistics.intervals import Interval

HALF = Interval(0.5, 0.25, 0.75, 9)


def none(n: int, apart: int | None = None, enough: int | None = None) -> Interval:
    return Interval(0.5, math.nan, math.nan, n, apart, enough)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (none(0), "n = 0: no interval"),
        (none(1, 0), "n = 1: no interval"),
        (none(2, 0), "no interval: all 2 prompts are alike"),
        (none(50, 9, 120), "too few prompts: 9 of 50 differ, about 120 would do"),
        (none(50, 10, 1200), "too few prompts: one of 50 outweighs all others, about 1,200 would do"),
        (none(50, 9), "no interval for these 50 prompts"),
        (none(50, None, 120), "no interval for these 50 prompts"),
    ],
)
def test_golden_why_there_is_no_interval(found: Interval, said: str) -> None:
    assert missing(found) == said
    assert ends(found, ".2f") == f"({said})"
    assert interval(found) == f"+0.5 ({said})"
    assert interval(found._replace(mean=math.nan)) == f"- ({said})"


def test_golden_numbers_with_their_ends() -> None:
    assert interval(HALF) == "+0.5 [+0.25, +0.75]"
    assert with_ends(HALF, ".1f") == "0.5 [0.2, 0.8]"
    assert with_ends(HALF, ".0f", percent=True) == "50 % [25, 75]"
    assert with_ends(none(1), ".0f", percent=True) == "50 % (n = 1: no interval)"
    assert ends(HALF, ".2f", scale=2.0) == "[0.50, 1.50]"
    assert [number(value) for value in (None, math.nan, math.inf, -math.inf, 0.0, -1.25)] == [
        *("-" for _ in range(4)), "+0", "-1.25",
    ]  # fmt: skip
    assert [percent(share) for share in (0.0, 0.125, 1.0, math.nan)] == ["0.0 %", "12.5 %", "100.0 %", "-"]
    counts = [counted(count, "prompt") for count in (0, 1, 2, 1200)]
    assert counts == ["0 prompts", "1 prompt", "2 prompts", "1,200 prompts"]
    assert counted(2, "penalty", "penalties") == "2 penalties"


@pytest.mark.parametrize(
    ("mean", "low", "high", "digits"),
    [
        # two digits of the half-width
        (0.0, -0.4, 0.4, 2),
        (5.0, 4.75, 5.25, 2),
        (5.0, 4.975, 5.025, 3),
        (0.0, -4.0, 4.0, 1),
        (0.0, -40.0, 40.0, 0),
        (0.0, -400.0, 400.0, 0),
        (0.0, -1e-12, 1e-12, 8),
        # without a width, of a tenth of the mean
        (5.0, None, None, 2),
        (-50.0, None, None, 1),
        (5.0, 4.0, None, 2),
        (5.0, None, 6.0, 2),
        (5.0, 5.0, 5.0, 2),
        # and of nothing none
        (0.0, None, None, 0),
        (None, None, None, 0),
        (0.0, -math.inf, math.inf, 0),
    ],
)
def test_golden_as_many_digits_as_the_width_says(
    mean: float | None, low: float | None, high: float | None, digits: int
) -> None:
    assert decimals({"mean": mean, "low": low, "high": high}) == digits


def test_golden_fixed_numbers_have_a_minus_sign_of_their_own_and_no_sign_on_a_zero() -> None:
    shown = [fixed(value, 1, sign=sign) for sign in (False, True) for value in (0.5, -0.5, 0.0, -0.04, 12.34)]
    assert shown == ["0.5", "\u22120.5", "0.0", "0.0", "12.3", "+0.5", "\u22120.5", "0.0", "0.0", "+12.3"]
    assert [fixed(value, 1) for value in (None, math.nan, math.inf)] == ["\u2013"] * 3


def test_golden_short_numbers() -> None:
    shown = {
        0.0: "0",
        1.0: "1",
        0.5: "0.5",
        -0.25: "\u22120.25",
        12.34: "12.3",
        120.0: "120",
        1234.5: "1234",
        999_999.0: "999999",
        1e6: "1.00e+06",
        -2.5e6: "\u22122.50e+06",
        1e-5: "0.00001",
        9.99e-6: "9.99e\u221206",
    }
    assert {value: short(value) for value in shown} == shown
    assert for_terminal(short(-0.25)) == "-0.25"


def test_golden_brackets() -> None:
    ends_of: dict[str, Any] = {"low": -0.125, "high": 0.375}
    assert bracket(ends_of, 3) == "[\u22120.125, 0.375]"
    assert bracket(ends_of, 3, sign=True) == "[\u22120.125, +0.375]"
    assert bracket({"low": None, "high": 1.0}, 1) == bracket({"low": 1.0, "high": None}, 1) == ""
