"""Charts: property (hypothesis) for scales and ticks, oracle for the running mean."""

import itertools
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from sarm_control.comparison.html.axes import Scale, extent, tick_labels, ticks
from sarm_control.comparison.html.charts import (
    Bar,
    Series,
    bar_chart,
    interval_plot,
    line_chart,
    running_mean,
    window,
)
from sarm_control.comparison.html.templating import render_template

values = st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=20)


@settings(deadline=None, max_examples=40)
@given(values, st.booleans())
def test_property_an_extent_holds_every_value_and_is_never_empty(numbers, zero) -> None:
    low, high = extent(numbers, include_zero=zero)
    assert low < high
    assert all(low <= value <= high for value in numbers if value is not None)
    assert not zero or low <= 0 <= high


@settings(deadline=None, max_examples=40)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_property_ticks_lie_inside_are_even_and_labelled_apart(low, width) -> None:
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)) or high <= low:
        return
    marks = ticks(low, high)
    slack = 1e-6 * (high - low)
    assert 2 <= len(marks) <= 12
    assert all(low - slack <= mark <= high + slack for mark in marks)
    steps = [second - first for first, second in itertools.pairwise(marks)]
    assert max(steps) - min(steps) <= 1e-6 * max(abs(mark) for mark in marks) + slack
    assert len(tick_labels(marks)) == len(marks)


@settings(deadline=None, max_examples=40)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0, 1))
def test_property_a_scale_is_straight(low, width, share) -> None:
    scale = Scale(low, low + width, 10, 110)
    assert scale(low + share * width) == pytest.approx(10 + 100 * share, abs=0.06)


def test_oracle_running_mean_and_gaps() -> None:
    assert running_mean([1.0, 2.0, 6.0, None, 4.0], 3) == [1.0, 3.0, 4.0, None, 4.0]
    assert running_mean([1.0, 5.0], 1) == [1.0, 5.0]
    assert [window(count) for count in (1, 14, 15, 40, 400)] == [1, 1, 3, 7, 43]


def test_a_gap_splits_the_line_and_a_lone_point_is_drawn() -> None:
    chart = line_chart(
        [Series("a", [1, 2, 3, 4], [1.0, 2.0, None, 3.0])], title="t", x_label="step", y_label="reward"
    )
    drawn = chart.split('<path d="')[1].split('"')[0]
    assert drawn.count("M") == 2
    assert drawn.endswith("h.1")


def test_bars_start_at_zero_and_end_at_their_value() -> None:
    chart = bar_chart(
        [Bar("up", 2.0, 1.0, 3.0, "+2"), Bar("down", -1.0, None, None, "-1")], title="t", x_label="x"
    )
    first, second = (piece.split("/>")[0] for piece in chart.split("<rect ")[1:3])

    def attribute(piece: str, name: str) -> float:
        return float(piece.split(f'{name}="')[1].split('"')[0])

    zero = attribute(first, "x")
    assert attribute(second, "x") + attribute(second, "width") == pytest.approx(zero, abs=0.2)
    assert attribute(first, "width") == pytest.approx(2 * attribute(second, "width"), abs=0.3)
    assert chart.count("whisker") == 1


class Shown(HTMLParser):
    """The tags of a chart, its attributes' values and its text."""

    def __init__(self, chart: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.values: list[str | None] = []
        self.text = ""
        self.feed(str(chart))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


LETTERS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1)


@settings(deadline=None, max_examples=40)
@given(LETTERS, LETTERS, LETTERS)
def test_property_text_and_attributes_are_escaped(label, title, axis) -> None:
    bars = [Bar(label, 2.0, 1.0, 3.0, label)]
    lines = [Series("a", [1, 2], [1.0, 2.0])]
    for chart in (
        bar_chart(bars, title=title, x_label=axis),
        interval_plot(bars, title=title, x_label=axis),
        line_chart(lines, title=title, x_label=axis, y_label=label),
    ):
        shown = Shown(chart)
        assert shown.tags <= {"svg", "title", "line", "text", "rect", "path", "circle"}
        assert title in shown.values
        assert all(text in shown.text for text in (label, title, axis))


def test_what_a_template_made_is_not_escaped_twice_and_all_else_is() -> None:
    chart = bar_chart([Bar("&", 1.0, None, None, "<b>")], title="t", x_label="x")
    assert isinstance(chart, Markup)
    assert "&lt;b&gt;" in chart
    assert "&amp;lt;" not in chart


def test_a_template_that_lacks_a_value_says_so() -> None:
    with pytest.raises(UndefinedError, match="'width' is undefined"):
        render_template("rows.svg")
