"""Reads YAML that may be damaged or hostile, with limits on size, depth and numbers, and without anchors.

An alias (`*name`) stands for everything in its anchor (`&name`), so ten lines of them can stand for
gigabytes. None of our files needs them, so both are refused.
"""

import re
from pathlib import Path
from typing import Any, Final

import yaml

from sarm_control.bounded_json import LONGEST_NUMBER
from sarm_control.errors import DataError, SarmError

MOST_BYTES: Final = 1 << 20
"""The largest YAML file that is read, in bytes; the YAML reader is slow."""
DEEPEST: Final = 50
"""How deep lists and mappings may be nested."""


class BadYaml(ValueError):
    """Why a text is not YAML that can be used, in a few words.

    Args:
        reason: a few words.
        line: the line, from 1; None where it is not known.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


class _Bounded(yaml.SafeLoader):
    """Refuses anchors, aliases, and nesting that is too deep."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            problem = "anchors (&) and aliases (*) are not supported; write the value out"
            raise yaml.MarkedYAMLError(None, None, problem, event.start_mark)
        if self._depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"nested more than {DEEPEST} deep", event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """A scalar whose text is whole characters, keys too."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            # JSON writes a character beyond 16 bits as two escapes, which PyYAML leaves apart: such a string
            # can be neither written nor compared. Two halves are joined; one alone is no text.
            try:
                node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                problem = "half a character, which is no text"
                raise yaml.MarkedYAMLError(None, None, problem, node.start_mark) from None
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """A whole number of bounded length."""
        if len(node.value) > LONGEST_NUMBER:
            problem = f"a number of {len(node.value)} digits"
            raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
        return int(self.construct_yaml_int(node))


class _Plain(_Bounded):
    """Keeps plain scalars as text; the caller of `compose_yaml` decides on their types."""

    # YAML itself reads `no` as false and 1e-4 as text; who knows what a key wants decides better
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_Bounded.add_constructor("tag:yaml.org,2002:int", _Bounded.construct_number)


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a document, plain scalars as text; None for an empty one.

    Raises:
        BadYaml: the text is not YAML, or exceeds a limit.
    """
    node: yaml.Node | None = _tried(text, lambda loader: loader.get_single_node(), _Plain)
    return node


def parse_yaml(text: str) -> Any:
    """The value of a document.

    Raises:
        BadYaml: the text is not YAML, or exceeds a limit.
    """
    return _tried(text, lambda loader: loader.get_single_data(), _Bounded)


def yaml_of(path: Path, text: str, hint: str | None = None, error: type[SarmError] = DataError) -> Any:
    """The value of a YAML text that was read from `path`.

    Raises:
        SarmError: an `error` naming the file, the line and why it cannot be used.
    """
    try:
        return parse_yaml(text)
    except BadYaml as bad:
        where = path if bad.line is None else f"{path}:{bad.line}"
        raise error(f"{where}: not YAML: {bad}", hint=hint) from bad


def _tried(text: str, what: Any, kind: type[_Bounded]) -> Any:
    loader = None
    try:
        loader = kind(text)
        return what(loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = str(error.problem or error.context)
        raise BadYaml(reason, None if mark is None else mark.line + 1) from None
    except yaml.YAMLError as error:
        raise BadYaml(str(error).splitlines()[0]) from None
    except RecursionError:
        raise BadYaml("nested too deeply") from None
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError) as error:
        # a tag that does not fit its value, such as `!!int x`, or an impossible date
        raise BadYaml(str(error)[:200]) from None
    finally:
        if loader is not None:
            loader.dispose()
