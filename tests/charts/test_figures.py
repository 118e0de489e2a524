"""Oracle: a chart's specification holds what it was given. Property of each: safe, labelled, with ticks."""

import csv
import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from sarm_control.charts import LinePoint, Row, Step, forest, lines, save_figures, tone_of, waterfall
from sarm_control.charts.line_chart import running_mean, window
from sarm_control.errors import MissingExtraError
from tests.pages.made_up import EVIL, PLACES, POINTS, ROWS, STEPS, figures

FIGURES = figures()
every_figure = pytest.mark.parametrize("name", FIGURES)


def data_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Every row that a specification holds; Altair names data that it moves to the top."""
    rows = [row for values in spec.get("datasets", {}).values() for row in values]

    def inside(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("data"), dict):
                rows.extend(node["data"].get("values", []))
            for one in node.values():
                inside(one)
        elif isinstance(node, list):
            for one in node:
                inside(one)

    inside(spec)
    return rows


def holds(rows: list[dict[str, Any]], wanted: dict[str, Any]) -> bool:
    return any(all(row.get(key) == value for key, value in wanted.items()) for row in rows)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("forest", [row._asdict() for row in ROWS]),
        ("bars", [row._asdict() for row in ROWS]),
        ("lines", [point._asdict() for point in POINTS]),
        ("plane", [place._asdict() for place in PLACES]),
    ],
)
def test_the_specification_holds_every_number_that_was_given(name: str, given: list[dict[str, Any]]) -> None:
    rows = data_of(FIGURES[name].spec())
    for one in given:
        # words are made from the numbers where none were given
        wanted = {key: value for key, value in one.items() if key not in ("shown", "strong")}
        assert holds(rows, wanted), wanted


def test_the_parts_of_a_waterfall_begin_where_the_one_before_ended() -> None:
    rows = [row for row in data_of(FIGURES["waterfall"].spec()) if "origin" in row]
    rows = sorted(rows, key=lambda row: row["place"])
    ends = [(row["origin"], row["value"]) for row in rows]
    assert ends == [(0, 0.3), (0.3, pytest.approx(0.2)), (0, 0.2)]
    figure = waterfall([*STEPS, Step("tax", -0.05)], name="w", title="w", x_title="x")
    assert figure.rows[-1]["start"] == 0.2
    assert figure.rows[-1]["end"] == pytest.approx(0.15)


@pytest.mark.long
@pytest.mark.parametrize("width", [360, 560])
def test_many_lines_all_look_different_and_their_names_leave_the_chart_its_size(width: int) -> None:
    names = [f"answers that did not end {place}" for place in range(9)]
    points = [LinePoint(name, x, float(x)) for name in names for x in (1, 2)]
    figure = lines(points, name="many", title="Many", x_title="step", y_title="share")
    view = re.search(r'viewBox="0 0 ([\d.]+) ', figure.svg(width))
    assert view is not None
    # more than the width asked for is made smaller on the page, its letters too
    assert float(view[1]) <= width + 16
    spec = figure.spec(width)
    layer = next(one for one in spec["layer"] if "strokeDash" in one["encoding"])
    colours = layer["encoding"]["color"]["scale"]["range"]
    dashes = layer["encoding"]["strokeDash"]["scale"]["range"]
    assert len({(colour, tuple(dash)) for colour, dash in zip(colours, dashes, strict=True)}) == len(names)


@every_figure
def test_the_csv_file_has_the_numbers(name: str) -> None:
    figure = FIGURES[name]
    read = list(csv.DictReader(io.StringIO(figure.csv())))
    assert len(read) == len(figure.rows)
    for text, row in zip(read, figure.rows, strict=True):
        assert text == {key: "" if value is None else str(value) for key, value in row.items()}


@every_figure
@pytest.mark.parametrize("width", [720, 336])
def test_a_drawing_is_plain_svg_as_wide_as_asked(name: str, width: int) -> None:
    svg = FIGURES[name].svg(width)
    root = ElementTree.fromstring(svg)
    assert width * 0.8 <= float(root.attrib["width"]) <= width * 1.15
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"script", "style", "image", "foreignObject", "a", "use"}
    for element in root.iter():
        assert not {"style", "href", "onload", "onclick"} & {key.rpartition("}")[2] for key in element.attrib}
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "").replace("http://evil.example", "")


@every_figure
def test_labels_are_text_whatever_they_hold(name: str) -> None:
    svg = FIGURES[name].svg()
    assert "<script" not in svg
    assert "<img" not in svg
    assert "alert(1)" not in re.sub(r"<text[^>]*>[^<]*</text>", "", svg)


def test_a_hostile_label_is_drawn_as_it_is() -> None:
    label = 'a\'] + alert(1) "<b>" \\'
    root = ElementTree.fromstring(forest([Row(label, 1.0)], name="f", title="t", x_title="x").svg())
    assert label in [element.text for element in root.iter()]


@every_figure
def test_axes_of_numbers_have_several_ticks(name: str) -> None:
    if name in ("spots", "bins"):
        pytest.skip("no axis of numbers across")
    for width in (720, 336):
        texts = re.findall(r">(\u2212?[\d.]+)</text>", FIGURES[name].svg(width))
        assert len(texts) >= 3, (width, texts)


@pytest.mark.long
def test_two_charts_of_one_page_share_no_id() -> None:
    ids = [
        one
        for figure in FIGURES.values()
        for w in (720, 336)
        for one in re.findall(r' id="([^"]+)"', figure.svg(w))
    ]
    assert len(ids) == len(set(ids))


def test_a_figure_drawn_twice_is_the_same() -> None:
    assert FIGURES["waterfall"].svg() == FIGURES["waterfall"].svg()


@every_figure
def test_the_description_says_what_is_drawn(name: str) -> None:
    figure = FIGURES[name]
    assert figure.title in figure.description
    assert len(figure.description) > len(figure.title) + 20


def test_lines_keep_gaps_and_show_the_running_mean() -> None:
    values = [1.0, 2.0, None, 4.0, 5.0]
    figure = lines(
        [LinePoint("a", x, y) for x, y in enumerate(values)], name="l", title="t", x_title="x", y_title="y"
    )
    assert [row["y"] for row in data_of(figure.spec()) if "y" in row] == values
    assert running_mean([1.0, 2.0, 6.0], 3) == [1.0, 3.0, 6.0]
    assert running_mean([1.0, None, 3.0], 3) == [1.0, None, 3.0]
    assert [window(count) for count in (5, 15, 40, 200)] == [1, 3, 7, 23]


@pytest.mark.parametrize(
    ("low", "high", "more_is", "tone"),
    [
        (0.1, 0.2, "good", "good"),
        (-0.2, -0.1, "good", "bad"),
        (0.1, 0.2, "bad", "bad"),
        (-0.2, -0.1, "bad", "good"),
        (-0.1, 0.1, "good", "unclear"),
        (0.0, 0.1, "good", "unclear"),
        (None, None, "good", "unclear"),
        (-0.2, -0.1, "plain", "plain"),
    ],
)
def test_a_change_means_something_only_when_its_interval_leaves_out_zero(
    low: float | None, high: float | None, more_is: Any, tone: str
) -> None:
    assert tone_of(low, high, more_is=more_is) == tone


def test_figure_files_are_what_their_names_say(tmp_path: Path) -> None:
    written = save_figures([FIGURES["plane"]], tmp_path / "figures")
    first = {path.suffix: path.read_bytes()[:8] for path in written}
    assert first[".pdf"].startswith(b"%PDF")
    assert first[".png"] == b"\x89PNG\r\n\x1a\n"
    assert first[".svg"].startswith(b"<svg")
    assert (tmp_path / "figures" / "plane.csv").read_text().startswith("label,x,y")
    # 453 points at 300 dpi
    width = int.from_bytes((tmp_path / "figures" / "plane.png").read_bytes()[16:20], "big")
    assert abs(width - 453 * 300 / 72) < 120


@pytest.mark.parametrize("module", ["altair", "vl_convert"])
def test_a_missing_package_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match="chart") as caught:
        FIGURES["plane"].svg()
    assert caught.value.hint == 'pip install ".[report]" in the clone'


def test_the_specification_is_json_with_its_data_inside() -> None:
    text = json.dumps(FIGURES["forest"].spec(), allow_nan=False)
    assert json.dumps(EVIL) in text
    assert '"url"' not in text
