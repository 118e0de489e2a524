"""The groups that options stand in, and the page that `--help` and `--help-all` print.

A rarely needed option has the same group marked rare: `--help` only names it, `--help-all` describes it.
"""

import io
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cyclopts import Group

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

HELP_ALL = "--help-all"
_RARE = ", rarely needed"
_WIDEST = 100
_FAR = "      "
_ENDLESS = 10_000

INPUT = Group("Input", sort_key=1)
MODEL = Group("Model", sort_key=2)
COMPUTE = Group("What to compute", sort_key=3)
OUTPUT = Group("Output", sort_key=4)
EVERY = Group("Every command", sort_key=5)
RARE_INPUT = Group(f"Input{_RARE}", sort_key=11)
RARE_MODEL = Group(f"Model{_RARE}", sort_key=12)
RARE_COMPUTE = Group(f"What to compute{_RARE}", sort_key=13)
RARE_OUTPUT = Group(f"Output{_RARE}", sort_key=14)

GROUPS = (INPUT, MODEL, COMPUTE, OUTPUT, EVERY, RARE_INPUT, RARE_MODEL, RARE_COMPUTE, RARE_OUTPUT)
"""In the order of a help page; every option of every command stands in one of them."""


def asks_for_all(words: Iterable[str]) -> bool:
    """Whether `--help-all` is among the words, before any `--`."""
    for word in words:
        if word == "--":
            return False
        if word == HELP_ALL:
            return True
    return False


class HelpPage:
    """Writes help in lines that end at a word's end, continuation lines set in.

    Args:
        everything: whether rarely needed options are described too.
    """

    def __init__(self, *, everything: bool) -> None:
        self.everything = everything
        self._named_rare = False

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """The line of usage; every page begins with it."""
        del options
        self._named_rare = False
        if usage:
            words = _words(usage).removeprefix("Usage:").strip()
            _write(console, f"Usage: {words}", "", _FAR)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """What the command does, by paragraph."""
        del options
        for paragraph in _plain(description).split("\n\n"):
            if paragraph.strip():
                console.print()
                _write(console, " ".join(paragraph.split()), "", "")

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """One group of options, or the commands."""
        del options
        title = str(panel.title)
        if not panel.entries:
            return
        if title.endswith(_RARE) and not self.everything:
            self._name(console, title.removesuffix(_RARE), panel.entries)
            return
        console.print()
        _write(console, f"{title}:", "", "")
        for entry in panel.entries:
            _write(console, _line(entry, panel.format), "  ", _FAR)

    def _name(self, console: "Console", title: str, entries: "Iterable[HelpEntry]") -> None:
        """Rarely needed options, by name alone."""
        if not self._named_rare:
            console.print()
            _write(console, f"Rarely needed, described by {HELP_ALL}:", "", "")
            self._named_rare = True
        names = ", ".join(entry.display_labels[0] for entry in entries)
        _write(console, f"{title[:1].lower()}{title[1:]}: {names}", "  ", _FAR)


def _line(entry: "HelpEntry", kind: str) -> str:
    names = entry.display_labels_with_metavar if kind == "parameter" else entry.all_options
    parts = [_words(entry.description)]
    if entry.choices:
        parts.append(f"[choices: {', '.join(entry.choices)}]")
    # A switch is off unless it is given: that goes without saying.
    if entry.default not in (None, "False"):
        parts.append(f"[default: {entry.default}]")
    if entry.required:
        parts.append("[required]")
    said = " ".join(filter(None, parts))
    return f"{', '.join(names)}: {said}" if said else ", ".join(names)


def _words(text: Any) -> str:
    return " ".join(_plain(text).split())


def _plain(text: Any) -> str:
    """The text of what cyclopts hands over: a string or something that rich renders."""
    if text is None:
        return ""
    if isinstance(text, str):
        return text
    from rich.console import Console as Rich

    # as wide as anything: lines are broken once, by `_write`, and not by rich before it
    wide = Rich(file=io.StringIO(), width=_ENDLESS, color_system=None, force_terminal=False)
    with wide.capture() as captured:
        wide.print(text, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _write(console: "Console", text: str, first: str, later: str) -> None:
    lines = textwrap.wrap(
        text,
        min(console.width, _WIDEST),
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=False,
        break_on_hyphens=False,
    )
    # soft: the lines are broken already, and rich would break them again at a width of its own
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
