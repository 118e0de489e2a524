"""Contract tests of `--help` and `--help-all`: groups, widths, and every option whole on its line."""

import contextlib
import functools
import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from cyclopts import App, Argument, ArgumentCollection, Group

from sarm_control.cli import build_app, main
from sarm_control.cli._help import EVERY, GROUPS, asks_for_all

WIDTHS = (80, 100)
MOST_EVERYDAY = 14
"""Options on a page of `--help`, `--quiet` among them not counted: about a dozen."""


def commands(app: App, chain: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in app:
        if not name.startswith("-"):
            inner = app[name]
            if inner.default_command is not None:
                yield (*chain, name)
            yield from commands(inner, (*chain, name))


COMMANDS = sorted(commands(build_app()))


def arguments(words: tuple[str, ...]) -> ArgumentCollection:
    app = functools.reduce(lambda outer, name: outer[name], words, build_app())
    collection: ArgumentCollection = app.assemble_argument_collection(parse_docstring=False)
    return collection


class Page(NamedTuple):
    """One help page: the command's words, the flag, the width of the terminal and what was printed."""

    words: tuple[str, ...]
    flag: str
    width: int
    text: str

    def __repr__(self) -> str:
        return f"sarm {' '.join(self.words)} {self.flag} ({self.width} columns)"


@pytest.fixture(scope="module")
def pages() -> list[Page]:
    found = []
    for words, flag, width in itertools.product([(), *COMMANDS], ["--help", "--help-all"], WIDTHS):
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(width))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                assert main([*words, flag]) == 0
        assert err.getvalue() == ""
        found.append(Page(words, flag, width, out.getvalue()))
    return found


def of_command(pages: list[Page], flag: str) -> Iterator[tuple[Page, list[Argument]]]:
    """The narrow page of every command, with the options that are shown."""
    for page in pages:
        if page.words and page.flag == flag and page.width == WIDTHS[0]:
            yield page, [one for one in arguments(page.words) if one.show]


@pytest.mark.long
def test_no_line_is_longer_than_the_terminal(pages: list[Page]) -> None:
    assert not [
        (page, line)
        for page in pages
        for line in page.text.splitlines()
        if len(line) > page.width or line != line.rstrip()
    ]


@pytest.mark.long
def test_metamorphic_the_words_are_the_same_at_every_width(pages: list[Page]) -> None:
    """What wrapping breaks or loses is another word."""
    words = {(page.words, page.flag): page.text.split() for page in pages}
    assert not [page for page in pages if page.text.split() != words[page.words, page.flag]]
    assert not [
        (page, one.name)
        for page, shown in of_command(pages, "--help-all")
        for one in shown
        if " ".join(str(one.parameter.help).split()) not in " ".join(page.text.split())
    ]


def group_of(one: Argument) -> Group:
    """The group whose heading an option stands under."""
    groups = one.parameter.group
    assert isinstance(groups, tuple)
    assert isinstance(groups[0], Group)
    return groups[0]


def test_every_option_is_in_a_group() -> None:
    assert not [
        (words, one.name)
        for words in COMMANDS
        for one in arguments(words)
        if one.show and group_of(one) not in GROUPS
    ]


@pytest.mark.long
def test_help_describes_a_dozen_everyday_options_and_names_the_others(pages: list[Page]) -> None:
    for page, shown in of_command(pages, "--help"):
        everyday = [one for one in shown if GROUPS.index(group_of(one)) <= GROUPS.index(EVERY)]
        assert len(everyday) <= MOST_EVERYDAY, page
        described = set(re.findall(r"^  (--[a-z][\w-]*)", page.text, re.MULTILINE)) - {"--quiet"}
        options = {one.names[0] for one in everyday if one.names[:1] and one.names[0].startswith("--")}
        assert described == options, page
        others = [one.names[0] for one in shown if one not in everyday]
        assert not [name for name in others if not re.search(rf"{name}(?![\w-])", page.text)], page


@pytest.mark.long
def test_groups_come_in_their_order(pages: list[Page]) -> None:
    titles = [group.name for group in GROUPS]
    for page, _ in of_command(pages, "--help-all"):
        found = re.findall(r"^(\S.*):$", page.text, re.MULTILINE)
        assert found == sorted(found, key=titles.index), page


@pytest.mark.long
def test_build_and_discover_show_about_a_dozen_options(pages: list[Page]) -> None:
    for page, _ in of_command(pages, "--help"):
        if page.words in (("build",), ("discover",)):
            described = re.findall(r"^  (?:--[a-z]|[A-Z]+:)", page.text, re.MULTILINE)
            assert 10 <= len(described) <= 15
            assert "Rarely needed, described by --help-all:" in page.text
            assert "[default: False]" not in page.text


def test_a_word_after_two_dashes_asks_for_nothing() -> None:
    assert asks_for_all(["build", "--help-all"])
    assert not asks_for_all(["score", "--", "--help-all"])


def test_help_is_as_wide_as_the_terminal_says_without_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sarm_control", "build", "--help-all"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "60"},
    )
    assert max(map(len, done.stdout.splitlines())) <= 60
