"""The page of a comparison: what it says, that its numbers are those of report.json, and that it is safe."""

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sarm_control.comparison.first_screen import verdict_of
from sarm_control.comparison.headline import arm_title
from sarm_control.comparison.report_figures import change_figures, ledger_figure, proxy_and_gold
from sarm_control.comparison.report_page import comparison_page, render, write_report
from sarm_control.errors import DataError
from tests.browsing import check_page
from tests.comparison.conftest import EVIL
from tests.pages.test_pages import Parsed

DATA = re.compile(r'<data value="([^"]+)">([^<]*)</data>')


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


@pytest.fixture(scope="module")
def html(report: dict[str, Any]) -> str:
    return render(report)


def interval(mean: float, width: float | None = 0.1) -> dict[str, Any]:
    low, high = (None, None) if width is None else (mean - width, mean + width)
    return {"mean": mean, "low": low, "high": high, "n": 40}


def with_gold(report: dict[str, Any], against_base: dict[str, float], between: dict[Any, float]) -> Any:
    """The report with gold changes of each arm and between arms."""
    found = copy.deepcopy(report)
    row = {"key": "gold/reward", "label": "Gold reward", "unit": "gold", "change_sd": None}
    for arm in found["arms"]:
        change = interval(against_base[arm["name"]])
        arm["measures"].insert(1, {**row, "base": interval(0.0), "trained": change, "change": change})
    for pair in found["differences"]:
        change = interval(between[pair["from"], pair["to"]])
        pair["measures"].insert(1, {**row, "base": None, "trained": change, "change": change})
    return found


def with_placebo(report: dict[str, Any]) -> dict[str, Any]:
    """A third arm, the placebo."""
    found = copy.deepcopy(report)
    found["arms"].append({**copy.deepcopy(found["arms"][1]), "name": "random", "role": "placebo"})
    pair = found["differences"][0]
    for first, second in (("none", "random"), ("controls", "random")):
        found["differences"].append({**copy.deepcopy(pair), "from": first, "to": second})
    return found


def test_nothing_is_loaded_or_run_and_hostile_text_is_shown(report: dict[str, Any], html: str) -> None:
    parsed = Parsed(html)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "b"}
    assert "default-src &#39;none&#39;" in html
    text = "".join(parsed.texts)
    for sample in report["samples"]:
        assert sample["prompt"] in text
        for answer in sample["answers"]:
            assert EVIL in answer["text"]
            assert answer["text"] in text


@pytest.mark.long
def test_hostile_names_stay_text(report: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(report).replace('"controls"', '"<b onclick=x>\\"&"'))
    hostile["arms"] = [{**arm, "controls": arm['<b onclick=x>"&']} for arm in hostile["arms"]]
    for arm in hostile["arms"]:
        arm["ledger"]["controls"] = arm["ledger"].pop('<b onclick=x>"&')
    parsed = Parsed(render(hostile))
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert '<b onclick=x>"&' in "".join(parsed.texts)


def test_every_number_in_the_tables_is_in_the_json_and_rounds_to_what_is_shown(
    report: dict[str, Any], html: str
) -> None:
    known = numbers_in(report)
    sums = {  # rows that the page adds up itself
        arm["ledger"]["rest"]["delta"] + sum(entry["delta"] for entry in arm["ledger"]["entries"][12:])
        for arm in report["arms"]
    }
    shown = [(float(value), text) for value, text in DATA.findall(html)]
    assert len(shown) > 200
    for value, text in shown:
        assert any(math.isclose(value, other, abs_tol=1e-12) for other in known | sums), value
        plain = text.replace("\u2212", "-").replace("+", "")
        step = 10.0 ** -len(plain.partition(".")[2])
        assert any(
            abs(float(plain) - value * scale) <= 0.501 * step + 5e-3 * abs(value) for scale in (1, 100)
        )


def test_oracle_charts_hold_the_numbers_of_the_json(report: dict[str, Any]) -> None:
    changes = {figure.name: figure.rows for figure in change_figures(report, {})}
    for key in ("reward/model", "answer/length"):
        wanted = [
            next(row["change"]["mean"] for row in one["measures"] if row["key"] == key)
            for one in (*report["arms"], *report["differences"])
        ]
        assert [row["value"] for row in changes[f"change-{key.replace('/', '-')}"]] == wanted
    arm = report["arms"][1]
    ledger = ledger_figure(arm, {3: "thanks"}).rows
    assert [row["value"] for row in ledger[:8]] == [one["delta"] for one in arm["ledger"]["entries"][:8]]
    assert any(row["label"] == "3 \u2013 thanks" for row in ledger)
    total = next(place for place, row in enumerate(ledger) if row["total"])
    # the parts reach the sum that the ledger states
    assert ledger[total - 1]["end"] == pytest.approx(arm["ledger"]["model_change"], abs=1e-9)
    sd = report["arms"][0]["reward_sd"]
    golden = with_gold(report, {"none": -0.5, "controls": 0.2}, {("none", "controls"): 0.7})
    place = proxy_and_gold(golden).rows[1]
    change = next(row["change"] for row in report["arms"][0]["measures"] if row["key"] == "reward/model")
    assert place["x"] == pytest.approx(change["mean"] / sd)
    assert (place["y"], place["tone"]) == (-0.5, "bad")
    assert proxy_and_gold(report).name == "reward-and-kl"


@pytest.mark.parametrize(
    ("gold", "chance", "line", "tone"),
    [
        (
            0.6,
            -0.7,
            "The control worked: gold ends higher than under no control and under the placebo.",
            "good",
        ),
        (
            0.6,
            0.02,
            "Gold ends higher than under no control, but no clearer than under the placebo.",
            "unclear",
        ),
        (
            0.6,
            0.7,
            "Gold ends higher than under no control, but lower than under the placebo.",
            "bad",
        ),
        (0.02, -0.7, "No clear effect: gold shows no clear change against no control.", "unclear"),
        (-0.6, -0.7, "The control did harm: gold ends lower than under no control.", "bad"),
    ],
)
def test_the_verdict_needs_gold_and_the_placebo(
    report: dict[str, Any], gold: float, chance: float, line: str, tone: str
) -> None:
    between = {("none", "controls"): gold, ("none", "random"): 0.0, ("controls", "random"): chance}
    base = {"none": -0.5, "controls": 0.1, "random": -0.5}
    found = verdict_of(with_gold(with_placebo(report), base, between))
    assert (found.line, found.tone) == (line, tone)
    assert [tile.question for tile in found.tiles] == ["Did it work?", "Against what?", "At what cost?"]
    assert found.tiles[0].value.replace("\u2212", "-") == f"{gold:+.2f}"
    # the second number is of the control against the placebo, the difference is from the control to it
    assert found.tiles[1].value.replace("\u2212", "-") == f"{-chance:+.2f}"


def test_without_gold_the_page_does_not_say_whether_answers_are_better(report: dict[str, Any]) -> None:
    found = verdict_of(report)
    assert found.tone == "unclear"
    rows = report["differences"][0]["measures"]
    rate = next(row["change"] for row in rows if row["key"] == "penalty/3/rate")
    fell = int(rate["high"] < 0)
    assert found.line == f"{fell} of 1 penalised latents fire less than under no control; no gold judged."


def test_a_run_without_controls_that_loses_gold_was_hacked(report: dict[str, Any]) -> None:
    alone = with_gold(report, {"none": -0.5, "controls": 0.1}, {("none", "controls"): 0.6})
    alone["arms"], alone["differences"] = alone["arms"][:1], []
    found = verdict_of(alone)
    assert found.line == "The reward model was hacked: its reward rose while gold fell."
    assert found.tone == "bad"


def test_arms_are_named_for_readers() -> None:
    assert arm_title({"name": "none", "controls": []}) == "no control"
    assert arm_title({"name": "seed1", "controls": []}) == "seed1 (no control)"
    assert arm_title({"name": "random", "controls": ["edit"]}) == "random (placebo)"
    assert arm_title({"name": "ours", "controls": ["edit"]}) == "ours"


def test_each_sample_names_the_latents_that_paid_and_every_arm_has_its_rise_and_fall(
    report: dict[str, Any], html: str
) -> None:
    said = {sample["why"] for sample in report["samples"]}
    for arm in ("none", "controls"):
        assert said & {f"Largest rise of {arm}", f"Largest fall of {arm}"}
    answers = [answer for sample in report["samples"] for answer in sample["answers"]]
    assert all(answer["latents"] for answer in answers)
    assert html.count('<ul class="paid">') == len(answers)


def test_the_headline_is_in_the_page(report: dict[str, Any], html: str) -> None:
    text = "".join(Parsed(html).texts)
    for sentence in report["headline"]:
        assert sentence in text


@pytest.mark.long
def test_the_page_is_small(report: dict[str, Any], html: str) -> None:
    assert len(html.encode()) < 1_000_000
    long = copy.deepcopy(report)
    for sample in long["samples"]:
        for answer in sample["answers"]:
            answer["text"] = "<&>" * 1000
    assert len(render(long).encode()) < 5_000_000


@pytest.mark.long
def test_one_arm_without_intervals_or_curves_still_renders(report: dict[str, Any]) -> None:
    small = copy.deepcopy(report)
    small["arms"], small["differences"], small["samples"] = small["arms"][:1], [], []
    arm = small["arms"][0]
    arm["curves"] = {"step": []}
    for row in arm["measures"]:
        for one in filter(None, (row["base"], row["trained"], row["change"])):
            one["low"] = one["high"] = None
    for entry in arm["ledger"]["entries"]:
        entry["low"] = entry["high"] = None
    page = comparison_page(small)
    assert [section.id for section in page.sections] == ["changed", "ledger", "made"]
    Parsed(render(small))


@pytest.mark.long
def test_anybody_can_read_the_page(html: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html)
    check_page(path)


@pytest.mark.long
def test_the_file_is_made_from_the_json_alone(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    write_report(tmp_path / "report.json", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(report)


def test_another_json_is_refused() -> None:
    with pytest.raises(DataError, match="not a comparison report of format sarm-compare-1: no format field"):
        render({"arms": []})
