"""Which tests reach which line, for `mutate.py`: one run of the tests, with a context of coverage.py each.

    python scripts/mutate_reach.py OUT SOURCE -- TESTS...

runs pytest on TESTS and writes OUT, JSON in the form of `Reach`. What a fixture of a module or of the session
does runs once, in the first test that needs it; it counts for every test that asks for the fixture. Processes
that tests start are measured too (`sitecustomize` beside coverage.py begins it).
"""

import ast
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

FIXTURE = "fixture "
TEST_NAME = "SARM_MUTATE_TEST"
MARKS = "not minutes and not engines"
"""The tests that take part: those of `make test` and of `make test-long`, as in continuous integration."""
STARTED = "import coverage\n\ncoverage.process_startup()\n"
"""What `sitecustomize.py` says: a process that a test starts measures itself."""


class Statement(NamedTuple):
    """The statement that a line belongs to, without the block below it.

    Args:
        first: its first line.
        last: its last line.
        imported: whether it runs when its module is imported, and so in no test of its own.
    """

    first: int
    last: int
    imported: bool


def statement(code: str, line: int) -> Statement:
    """The innermost statement with a line; coverage.py tells only of some lines of a long one."""
    node: ast.AST = ast.parse(code)
    found, imported = Statement(line, line, True), True
    while True:
        inner = next((one for one in _blocks(node) if _first(one) <= line <= _last(one)), None)
        if inner is None:
            return found
        imported = imported and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        below = [_first(one) for one in _blocks(inner)]
        end = max(min(below) - 1, _first(inner)) if below else _last(inner)
        found, node = Statement(_first(inner), max(end, line), imported), inner


def _blocks(node: ast.AST) -> list[Any]:
    """Statements right below a node, and the parts of `try` and `match` that hold statements."""
    return [
        one
        for one in ast.iter_child_nodes(node)
        if isinstance(one, ast.stmt | ast.ExceptHandler | ast.match_case)
    ]


def _first(node: Any) -> int:
    if isinstance(node, ast.match_case):
        return int(node.pattern.lineno)
    return int(min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))]))


def _last(node: Any) -> int:
    last: Any = node.body[-1] if isinstance(node, ast.match_case) else node
    return int(last.end_lineno)


class Reach(NamedTuple):
    """What a run of the tests told.

    Args:
        seconds: of each test on a processor, in the order they ran.
        fixtures: the names of the fixtures of each test.
        contexts: tests, and fixtures behind the word `fixture`; the empty one is importing and collecting.
        lines: of each file, by line: the numbers of the contexts that ran it.
    """

    seconds: dict[str, float]
    fixtures: dict[str, list[str]]
    contexts: list[str]
    lines: dict[str, dict[str, list[int]]]

    def tests(self, file: str, first: int, last: int) -> set[str]:
        """The tests that run one of some lines of a file themselves or by a fixture."""
        by_line = self.lines.get(file, {})
        ran = {self.contexts[one] for line in range(first, last + 1) for one in by_line.get(str(line), ())}
        made = {one.removeprefix(FIXTURE) for one in ran if one.startswith(FIXTURE)}
        return {test for test in self.seconds if test in ran or made.intersection(self.fixtures[test])}

    def imported(self, file: str, first: int, last: int) -> bool:
        """Whether one of some lines runs while modules are imported and tests collected."""
        by_line = self.lines.get(file, {})
        return any(
            self.contexts[one] == "" for line in range(first, last + 1) for one in by_line.get(str(line), ())
        )


def ordered(tests: Sequence[str], seconds: dict[str, float]) -> list[str]:
    """Quickest file first and quickest test first within it: a file's fixtures are made once."""
    files: dict[str, float] = {}
    for test in tests:
        files[_file(test)] = files.get(_file(test), 0.0) + seconds[test]
    return sorted(tests, key=lambda test: (files[_file(test)], _file(test), seconds[test], test))


def _file(test: str) -> str:
    return test.partition("::")[0]


class Chosen(NamedTuple):
    """The tests of one change, in their order.

    Args:
        tests: their names.
        because: `line`, they reach it; `import`, it runs at import and every test of the room may notice;
            `nothing`, no test reaches it.
    """

    tests: list[str]
    because: str


def chosen(reach: Reach, room_tests: Sequence[str], file: str, code: str, line: int) -> Chosen:
    """Which tests of a room are to notice a change of a line.

    Args:
        reach: the run of the tests.
        room_tests: folders and files of the room's tests.
        file: the path of the source as in `reach`.
        code: that source, unchanged.
        line: counted from 1.
    """
    room = [
        test for test in reach.seconds if any(test.startswith((f"{one}/", f"{one}::")) for one in room_tests)
    ]
    where = statement(code, line)
    own = reach.tests(file, where.first, where.last)
    if where.imported or reach.imported(file, where.first, where.last):
        near = reach.tests(file, 1, len(code.splitlines()))
        first = ordered([test for test in room if test in near], reach.seconds)
        return Chosen(
            [*first, *ordered([test for test in room if test not in near], reach.seconds)], "import"
        )
    tests = ordered([test for test in room if test in own], reach.seconds)
    return Chosen(tests, "line" if tests else "nothing")


class Contexts:
    """The plugin of pytest that names what runs.

    Args:
        measured: a started `coverage.Coverage`.
    """

    def __init__(self, measured: Any) -> None:
        self.measured = measured
        self.now = ""
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}

    def _named(self, name: str) -> str:
        before, self.now = self.now, name
        self.measured.switch_context(name)
        os.environ[TEST_NAME] = name
        return before

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Everything of a test belongs to it, what it sets up for itself too."""
        start = time.process_time()
        self._named(item.nodeid)
        self.fixtures[item.nodeid] = sorted(item.fixturenames)
        try:
            return (yield)
        finally:
            self._named("")
            self.seconds[item.nodeid] = round(time.process_time() - start, 3)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        """A fixture that several tests share has a name of its own."""
        if fixturedef.scope == "function":
            return (yield)
        before = self._named(FIXTURE + fixturedef.argname)
        try:
            return (yield)
        finally:
            self._named(before)


def measure(out: Path, source: str, tests: Sequence[str]) -> int:
    """Runs the tests and writes what they reach; pytest's exit status."""
    import coverage

    data = out.with_suffix(".coverage")
    settings = out.with_suffix(".ini")
    quiet = "module-not-measured, no-data-collected, module-not-imported, couldnt-parse"
    settings.write_text(
        f"[run]\ndata_file = {data}\nparallel = true\nsource = {source}\ncore = ctrace\n"
        f"context = ${{{TEST_NAME}-}}\ndisable_warnings = {quiet}\n",
        encoding="utf-8",
    )
    os.environ[TEST_NAME] = ""
    measured = coverage.Coverage(config_file=str(settings))
    measured.start()
    os.environ["COVERAGE_PROCESS_START"] = str(settings)
    plugin = Contexts(measured)
    words = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", MARKS, *tests]
    status = int(pytest.main(words, plugins=[plugin]))
    measured.stop()
    if status:
        return status
    measured.save()
    measured.combine()
    found = measured.get_data()
    numbers: dict[str, int] = {}
    lines = {
        Path(file).relative_to(Path.cwd()).as_posix(): {
            str(line): [numbers.setdefault(one, len(numbers)) for one in contexts]
            for line, contexts in found.contexts_by_lineno(file).items()
        }
        for file in found.measured_files()
    }
    reach = Reach(plugin.seconds, plugin.fixtures, list(numbers), lines)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(reach._asdict()), encoding="utf-8")
    partial.replace(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(measure(Path(sys.argv[1]), sys.argv[2], sys.argv[4:]))
