"""`make mutate`, oracle: which tests a change gets, told by hand, and runs of a package of two functions."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.outside import load

SCRIPTS = Path(__file__).parents[1] / "scripts"

SOURCE = """\
import math

LIMIT = [
    1,
    2,
]


@math_like(
    3,
)
def outer(a, b=4):
    try:
        if a > (
            5
        ):
            return 6
        elif a > 7:
            return [
                8,
                b,
            ]
    except ValueError:
        return 9

    def inner(c=10):
        return 11

    match a:
        case 12:
            return 13
    return inner


class Held:
    size = 14

    def method(self):
        return 15
"""
TEST = """\
import pytest
from held import numbers


class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("asked for its class, as some of torch's objects warn")


PROXY = Proxy()


@pytest.fixture(scope="module")
def made():
    return numbers.doubled(2)


def test_first(made):
    assert made == 4


def test_second(made):
    assert made + 1 == 5


@pytest.mark.parametrize("case", numbers.CASES)
def test_halved(case):
    assert numbers.halved(case) * 2 == case


def test_long():
    while numbers.halved(2) != 1:
        pass
"""
NUMBERS = """\
CASES = (2, 4)


def doubled(a):
    return a * 2


def halved(a):
    return a / 2


def unused(a):
    return a - 1
"""


NUMBERS_AT = ("src/held/numbers.py", NUMBERS)


@pytest.fixture(scope="module")
def reaching() -> ModuleType:
    return load(SCRIPTS / "mutate_reach.py")


@pytest.fixture(scope="module")
def mutating() -> ModuleType:
    return load(SCRIPTS / "mutate.py")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src" / "held").mkdir(parents=True)
    (tmp_path / "src" / "held" / "__init__.py").touch()
    (tmp_path / "src" / "held" / "numbers.py").write_text(NUMBERS, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n", encoding="utf-8")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_numbers.py").write_text(TEST, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "first", "last", "imported"),
    [
        # the number that stands in the line, the lines of its statement, and whether importing runs it
        (1, 3, 6, True),
        (3, 9, 12, True),
        (4, 9, 12, True),
        (5, 14, 16, False),
        (6, 17, 17, False),
        (7, 18, 18, False),
        (8, 19, 22, False),
        (9, 24, 24, False),
        (10, 26, 26, False),
        (11, 27, 27, False),
        (12, 30, 30, False),
        (13, 31, 31, False),
        (14, 36, 36, True),
        (15, 39, 39, False),
    ],
)
def test_the_statement_of_a_line(
    reaching: ModuleType, number: int, first: int, last: int, imported: bool
) -> None:
    line = next(at for at, text in enumerate(SOURCE.splitlines(), 1) if re.search(rf"\b{number}\b", text))
    assert reaching.statement(SOURCE, line) == (first, last, imported)


def told(reaching: ModuleType) -> Any:
    """Two files of the room and one of another; the fixture `made` runs line 6, no test line 14."""
    return reaching.Reach(
        seconds={
            "tests/a/test_slow.py::one": 3.0,
            "tests/a/test_slow.py::two": 0.5,
            "tests/a/test_quick.py::three": 1.0,
            "tests/b/test_other.py::four": 0.1,
        },
        fixtures={
            "tests/a/test_slow.py::one": ["made"],
            "tests/a/test_slow.py::two": ["made"],
            "tests/a/test_quick.py::three": [],
            "tests/b/test_other.py::four": ["made"],
        },
        contexts=["", "fixture made", "tests/a/test_quick.py::three", "tests/b/test_other.py::four"],
        lines={"src/held/numbers.py": {"1": [0], "5": [1], "9": [2, 3]}},
    )


@pytest.mark.parametrize(
    ("line", "tests", "because"),
    [
        (5, ["slow.py::two", "slow.py::one"], "line"),
        (9, ["quick.py::three"], "line"),
        (13, [], "nothing"),
        (1, ["quick.py::three", "slow.py::two", "slow.py::one"], "import"),
    ],
)
def test_a_change_gets_the_tests_that_reach_its_line(
    reaching: ModuleType, line: int, tests: list[str], because: str
) -> None:
    found = reaching.chosen(told(reaching), ["tests/a"], "src/held/numbers.py", NUMBERS, line)
    assert found == ([f"tests/a/test_{one}" for one in tests], because)


def test_tests_that_reach_a_module_go_before_the_rest_of_the_room(reaching: ModuleType) -> None:
    alone = told(reaching)._replace(lines={"src/held/numbers.py": {"1": [0], "5": [1]}})
    found = reaching.chosen(alone, ["tests/a"], "src/held/numbers.py", NUMBERS, 1)
    assert [one.rpartition("::")[2] for one in found.tests] == ["two", "one", "three"]


@pytest.mark.long
def test_a_run_tells_by_which_test_each_line_is_run(reaching: ModuleType, project: Path) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    coverage = cache / "sarm-control" / "mutate" / "coverage"
    if not coverage.is_dir():
        pytest.skip("coverage.py is in the environment that the first `make mutate` makes")
    out = project / "told.reach"
    words = [sys.executable, str(SCRIPTS / "mutate_reach.py"), str(out), "src", "--", "tests"]
    path = os.pathsep.join([str(project / "src"), str(coverage)])
    subprocess.run(words, cwd=project, env={**os.environ, "PYTHONPATH": path}, check=True)
    found = reaching.Reach(**json.loads(out.read_text(encoding="utf-8")))
    names = {
        line: [one.rpartition("::")[2] for one in reaching.chosen(found, ["tests"], *NUMBERS_AT, line).tests]
        for line in (5, 9, 13)
    }
    assert set(names[5]) == {"test_first", "test_second"}
    assert set(names[9]) == {"test_halved[2]", "test_halved[4]", "test_long"}
    assert names[13] == []
    assert len(reaching.chosen(found, ["tests"], *NUMBERS_AT, 1).tests) == 5


class Asked:
    """A server on the project, without the slow packages that it loads first: these tests need none."""

    def __init__(self, project: Path) -> None:
        code = "import mutate_server; mutate_server.LOADED = (); mutate_server.main()"
        path = os.pathsep.join([str(SCRIPTS), str(project / "src")])
        self.file = project / "src" / "held" / "numbers.py"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "tests/test_numbers.py"],
            cwd=project,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, old: str, new: str, *names: str, fresh: bool, seconds: float = 60.0
    ) -> tuple[int | None, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {
            "tests": [f"tests/test_numbers.py::{one}" for one in names],
            "seconds": seconds,
            "file": "src/held/numbers.py",
            "before": NUMBERS,
            "after": NUMBERS.replace(old, new),
            "fresh": fresh,
        }
        # the server has read the source when it has answered once; the first request here changes nothing
        self.file.write_text(NUMBERS.replace(old, new), encoding="utf-8")
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["output"]


@pytest.fixture
def asked(project: Path) -> Iterator[Asked]:
    server = Asked(project)
    with server.process:
        assert server("", "", "test_first", fresh=False)[0] == 0
        yield server
        assert server.process.stdin is not None
        server.process.stdin.close()
    assert server.process.returncode == 0


@pytest.mark.long
@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_sees_the_source_as_it_is(asked: Asked, fresh: bool) -> None:
    assert asked("", "", "test_halved[2]", "test_first", fresh=fresh)[0] == 0
    # of the same length and in the same second as the source before it
    failed, output = asked("a * 2", "a * 3", "test_halved[2]", "test_second", "test_first", fresh=fresh)
    assert failed == 1
    assert "FAILED tests/test_numbers.py::test_second" in output
    assert "test_first" not in output
    assert asked("a * 2", "a * 3", "test_halved[2]", fresh=fresh)[0] == 0
    assert asked("a / 2", "a / 1", "test_long", fresh=fresh, seconds=5.0)[0] is None
    assert asked("", "", "test_halved[2]", "test_long", fresh=fresh)[0] == 0


@pytest.mark.long
@pytest.mark.parametrize("fresh", [False, True])
def test_a_change_of_what_runs_at_import_is_seen(asked: Asked, fresh: bool) -> None:
    """The loaded process leaves to the other what no change of a function does."""
    # the change takes the test's name away: its function stands for it
    assert asked("(2, 4)", "(3, 4)", "test_halved[2]", fresh=fresh)[0] == 0
    assert asked("(2, 4)", "('', 4)", "test_halved[2]", fresh=fresh)[0] == 1
    assert asked("def doubled(a):", "def doubled(a, b):", "test_first", fresh=fresh)[0] == 1
    assert asked("def doubled(a):", "def other(a):", "test_first", fresh=fresh)[0] == 1


DECORATED = """\
def kept(one):
    def inside(a):
        def deeper(b):
            return b * 2
        return deeper(a) + 1
    return inside


@kept
def doubled(a):
    return a


class Held:
    @kept
    def halved(self):
        return self
"""


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [("+ 1", "+ 2", 8), ("b * 2", "b * 3", 10), ("return b * 2\n", "return (lambda: b * 2)()\n", None)],
)
def test_functions_that_a_decorator_has_made_get_their_changed_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, value: int | None
) -> None:
    file = tmp_path / "decorated.py"
    file.write_text(DECORATED, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "decorated", raising=False)
    module = load(file)
    functions = [module.kept, module.doubled, module.Held.halved]
    assert module.doubled(3) == module.Held.halved(3) == 7
    server = load(SCRIPTS / "mutate_server.py")
    done = server.exchange(str(file), DECORATED, DECORATED.replace(old, new), functions)
    # None: other functions than before, so that the module has to be imported anew
    assert done == (value is not None)
    if value is not None:
        assert module.doubled(3) == module.Held.halved(3) == module.kept(None)(3) == value


HEAD = {
    "rooms": ["control"],
    "mutants": 2,
    "seed": 0,
    "places": 9,
    "code": "ab",
    "commit": "12",
    "processor": "x",
}


def test_a_stopped_run_goes_on_from_its_file(mutating: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = mutating.Rows(path, HEAD)
    rows.add({"number": 0, "killed": True})
    rows.add({"number": 1, "killed": False})
    with path.open("a", encoding="utf-8") as file:
        file.write('{"number": 2, "kil')
    again = mutating.Rows(path, {**HEAD, "commit": "13"})
    assert [row["number"] for row in again.rows] == [0, 1]
    again.add({"number": 2, "killed": True})
    assert mutating.read(path) == [
        HEAD,
        {"number": 0, "killed": True},
        {"number": 1, "killed": False},
        {"number": 2, "killed": True},
    ]


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("code", "cd"), ("places", 8), ("rooms", [])])
def test_rows_of_two_runs_are_not_mixed(
    mutating: ModuleType, tmp_path: Path, name: str, value: object
) -> None:
    path = tmp_path / "rows.json"
    mutating.Rows(path, HEAD)
    with pytest.raises(SystemExit, match=f"rows.json is of a run with other {name}: name another file"):
        mutating.Rows(path, {**HEAD, name: value})


def test_the_share_has_an_exact_interval(mutating: ModuleType) -> None:
    # Clopper and Pearson's ends of 17 of 20 are .6211 and .9679
    rows = [{"killed": number < 17} for number in range(20)]
    assert mutating.share(rows) == "17 of 20 killed, 85% [62%, 97%]"


def test_rooms_name_files_that_are_there(mutating: ModuleType) -> None:
    root = SCRIPTS.parent
    assert all(mutating.modules(list(mutating.ROOMS)).values())
    assert not [
        one
        for room in mutating.ROOMS.values()
        for one in (*(f"src/sarm_control/{part}" for part in room.source), *room.tests)
        if not (root / one).exists()
    ]
