"""What every page owes its reader: it loads and runs nothing, obeys no text, and can be read by anybody."""

import base64
import hashlib
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sarm_control.charts import COLOURS
from sarm_control.pages import (
    Cell,
    Number,
    Table,
    TableRow,
    figures_of,
    render_block,
    render_page,
    security_policy,
    text_cell,
    with_suffix,
    write_page,
)
from sarm_control.pages.blocks import Drawing, Prose, Section
from tests.browsing import check_page, look, opened
from tests.pages.made_up import EVIL, page

VOID = {"br", "meta", "path", "rect", "line"}


class Parsed(HTMLParser):
    """Collects tags and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(page())


def test_the_page_loads_nothing_and_runs_nothing(html: str) -> None:
    parsed = Parsed(html)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in parsed.tags:
        assert not {"src", "srcset", "style", "xlink:href"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    style = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_style_sheet_and_nothing_else(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    said = policy.group(1).replace("&#39;", "'")
    assert said == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert html.index("Content-Security-Policy") < html.index("<title>")


def test_a_script_of_a_page_is_allowed_by_its_hash() -> None:
    said = security_policy("a{}", scripts=("go()",))
    digest = base64.b64encode(hashlib.sha256(b"go()").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in said
    assert "unsafe" not in said


def test_hostile_text_is_shown_as_text(html: str) -> None:
    assert "<script" not in html
    assert "<img" not in html
    texts = "".join(Parsed(html).texts)
    assert texts.count(EVIL) > 10


def test_one_block_can_stand_alone() -> None:
    assert str(render_block(Prose([EVIL]))).startswith("<p>&lt;script&gt;")


def test_a_column_of_words_has_its_head_at_the_left_as_its_cells() -> None:
    rows = [
        TableRow("first", [Cell(), text_cell("not measured"), Cell(Number(1.0, "1"))]),
        TableRow("second", [text_cell("words"), Cell(Number(2.0, "2")), text_cell("not measured")]),
        TableRow("sum", [Cell(Number(3.0, "3"))], span=3),
    ]
    table = Table("", ("", "Words", "Mixed", "Numbers"), rows)
    assert table.words == {1}
    tags = Parsed(str(render_block(table))).tags
    heads = [
        attributes.get("class") for tag, attributes in tags if tag == "th" and attributes["scope"] == "col"
    ]
    assert heads == [None, "words", None, None]
    assert [attributes.get("class") for tag, attributes in tags if tag == "td"] == [
        *("words plain", "note plain", None),
        *("words plain", None, "note plain"),
        None,
    ]


@pytest.mark.long
def test_the_page_is_small(html: str, tmp_path: Path) -> None:
    write_page(page(), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 1_000_000
    assert (tmp_path / "page.html").read_text() == html


def test_every_figure_of_a_page_is_found() -> None:
    names = [figure.name for figure in figures_of(page())]
    assert names == ["plane", "forest", "lines", "bars", "waterfall", "pairs", "bins", "spots"]


@pytest.mark.long
def test_charts_of_one_name_are_told_apart_and_one_shown_twice_is_one() -> None:
    one, other = (figure for figure in figures_of(page()) if figure.name in ("bins", "forest"))
    # of the two the histogram has ids of its own
    one, other = (other, one) if one.name == "forest" else (one, other)
    named = [Drawing(replace(figure, name="same"), "") for figure in (one, other, one)]
    twice = page()._replace(hero=named[0], sections=[Section("a", "A", "", named)])
    assert [figure.name for figure in figures_of(twice)] == ["same", "same-2"]
    html = render_page(twice)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids)) > 2
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)
    assert figures_of(page()._replace(sections=[with_suffix(twice.sections[0], "x")]))[-1].name == "same-x-2"


def test_without_the_packages_for_charts_the_numbers_stand_in_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    html = render_page(page())
    assert 'pip install ".[report]" in the clone' in html.replace("&#34;", '"')
    assert 'role="img"' not in html
    assert html.count('<details class="numbers" open>') == 8
    Parsed(html)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_read_and_are_one_meaning_each() -> None:
    for name, shade in COLOURS.items():
        if name not in ("paper", "wash", "rule"):
            for ground in ("paper", "wash"):
                assert contrast(shade.light, COLOURS[ground].light) >= 4.5, name
                assert contrast(shade.dark, COLOURS[ground].dark) >= 4.5, name
    assert len({shade.light for shade in COLOURS.values()}) == len(COLOURS)


@pytest.fixture(scope="module")
def file(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html)
    return path


@pytest.mark.long
def test_anybody_can_read_the_page(file: Path) -> None:
    check_page(file)


@pytest.mark.long
def test_charts_follow_the_dark_and_parts_fold_on_a_telephone(file: Path) -> None:
    fill = "getComputedStyle(document.querySelector('figure .wide text')).fill"
    height = "document.documentElement.scrollHeight"
    shown = "document.querySelector('#checks .lights').checkVisibility({contentVisibilityAuto: true})"
    with opened(file) as page:
        look(page)
        light, wide = page.evaluate(fill), page.evaluate(height)
        assert page.evaluate(shown)
        look(page, scheme="dark")
        assert page.evaluate(fill) != light
        look(page, width=390)
        assert page.evaluate(height) < wide
        assert not page.evaluate(shown)
        look(page, width=700, media="print")
        # a change of the medium is laid out when the next frame is drawn
        page.wait_for_function(shown, timeout=10_000)
