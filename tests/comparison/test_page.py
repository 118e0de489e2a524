"""The report page: what it must not do (load, run, break), and that its numbers are report.json's."""

import copy
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sarm_control.comparison.html.page import render, write_report
from sarm_control.errors import DataError

VOID = {"br", "meta"}


class Page(HTMLParser):
    """Collects tags, attributes and `data` elements, and fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: list[tuple[float, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.data.append((float(dict(attrs)["value"] or "nan"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "data":
            self.data[-1] = (self.data[-1][0], data)
        if "style" not in self.open:
            self.text += data


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        return set().union(*map(numbers_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    return {float(value)} if isinstance(value, int | float) and not isinstance(value, bool) else set()


@pytest.fixture(scope="module")
def page(report: dict[str, Any]) -> Page:
    return Page(render(report))


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "href", "xlink:href", "srcset"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)


def test_the_style_sheet_loads_nothing(report: dict[str, Any]) -> None:
    style = render(report).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style


def test_text_of_answers_is_shown_and_never_run(report: dict[str, Any], page: Page) -> None:
    assert "<script" not in render(report)
    for sample in report["samples"]:
        assert sample["prompt"] in page.text
        for answer in sample["answers"]:
            assert "<script>" in answer["text"]
            assert answer["text"] in page.text


def test_hostile_names_stay_text(report: dict[str, Any]) -> None:
    hostile = json.loads(json.dumps(report).replace('"controls"', '"<b onclick=x>\\"&"'))
    hostile["arms"] = [{**arm, "controls": arm['<b onclick=x>"&']} for arm in hostile["arms"]]
    for arm in hostile["arms"]:
        arm["ledger"]["controls"] = arm["ledger"].pop('<b onclick=x>"&')
    parsed = Page(render(hostile))
    assert "b" not in {tag for tag, _ in parsed.tags}
    assert '<b onclick=x>"&' in parsed.text


def test_every_number_in_the_tables_is_in_the_json_and_rounds_to_what_is_shown(
    report: dict[str, Any], page: Page
) -> None:
    known = numbers_in(report)
    sums = {  # rows that the page adds up itself
        arm["ledger"]["rest"]["delta"] + sum(entry["delta"] for entry in arm["ledger"]["entries"][12:])
        for arm in report["arms"]
    }
    assert len(page.data) > 200
    for value, shown in page.data:
        assert any(math.isclose(value, other, abs_tol=1e-12) for other in known | sums), value
        plain = shown.replace("\u2212", "-").replace("+", "")
        step = 10.0 ** -len(plain.partition(".")[2])
        assert any(
            abs(float(plain) - value * scale) <= 0.501 * step + 5e-3 * abs(value) for scale in (1, 100)
        )


def test_tables_have_captions_and_header_scopes_and_charts_have_names(page: Page) -> None:
    tags = [tag for tag, _ in page.tags]
    assert tags.count("table") == tags.count("caption") == 5
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    named = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(named) >= 10
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in named)


def test_the_headline_is_on_top_and_names_what_happened(report: dict[str, Any], page: Page) -> None:
    for sentence in report["headline"]:
        assert page.text.index(sentence) < page.text.index("What changed")


def test_every_coordinate_is_a_number(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            if tag != "meta" and name in attributes:
                assert math.isfinite(float(attributes[name] or "nan"))
        assert "nan" not in (attributes.get("d") or "").lower()


def test_the_page_is_small(report: dict[str, Any]) -> None:
    assert len(render(report).encode()) < 200_000
    long = copy.deepcopy(report)
    for sample in long["samples"]:
        for answer in sample["answers"]:
            answer["text"] = "<&>" * 1000
    assert len(render(long).encode()) < 1_000_000


def test_one_arm_without_intervals_or_curves_still_renders(report: dict[str, Any]) -> None:
    small = copy.deepcopy(report)
    small["arms"], small["differences"], small["samples"] = small["arms"][:1], [], []
    arm = small["arms"][0]
    arm["curves"] = {"step": []}
    for row in arm["measures"]:
        for interval in filter(None, (row["base"], row["trained"], row["change"])):
            interval["low"] = interval["high"] = None
    for entry in arm["ledger"]["entries"]:
        entry["low"] = entry["high"] = None
    text = Page(render(small)).text
    assert "During training" not in text
    assert "Between the arms" not in text


def test_the_file_is_made_from_the_json_alone(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    write_report(tmp_path / "report.json", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(report)


def test_another_json_is_refused() -> None:
    with pytest.raises(DataError, match="not a comparison report of format sarm-compare-1: no format field"):
        render({"arms": []})
