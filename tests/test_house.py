"""The house rules of CONTRIBUTING.md, read off the files themselves."""

import ast
import functools
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sarm_control"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Data flows one way: a part imports only from itself and from those before it.
ORDER = (
    "errors",
    "extras",
    "seeds",
    "embedded",
    "console",
    "locks",
    "bounded_json",
    "bounded_yaml",
    "files",
    "process_group",
    "conversation",
    "sarm",
    "latents",
    "control",
    "discovery",
    "ppo",
    "evaluation",
    "build",
    "lab",
    "engines",
    "server",
    "report",
    "cli",
)
# The package's own door re-exports from every part, and `python -m` opens the command.
DOORS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
MAX_P90_FUNCTION_LINES = 48
MAX_MEDIAN_FUNCTION_LINES = 13


def short(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def part_of(path: Path) -> str:
    """The first name below the package: `sarm/scored.py` and `sarm/` belong to `sarm`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the file, also those inside functions."""
    here = ("sarm_control", *path.relative_to(PACKAGE).with_suffix("").parts)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*here[: -node.level], *filter(None, [node.module])]) if node.level else node.module
            )
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def functions() -> Iterator[tuple[str, int]]:
    """("file:line name", lines) of every function in the package, docstring included."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield f"{short(path)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_every_part_is_in_the_order(path: Path) -> None:
    assert path in DOORS or part_of(path) in ORDER, f"give {part_of(path)} its place in ORDER"


@pytest.mark.parametrize("path", [p for p in SOURCES if p not in DOORS], ids=short)
def test_imports_go_one_way(path: Path) -> None:
    own = ORDER.index(part_of(path))
    wrong = [
        f"{short(path)}:{line} imports {name}"
        for line, name in imported_names(path)
        if name.startswith("sarm_control.")
        and name.split(".")[1] in ORDER
        and ORDER.index(name.split(".")[1]) > own
    ]
    assert not wrong


@pytest.mark.parametrize("path", [p for p in SOURCES if p not in DOORS], ids=short)
def test_no_part_goes_through_the_lazy_door(path: Path) -> None:
    """`from sarm_control import RewardModel` inside the package would hide the direction."""
    allowed = {"__version__", *ORDER}
    wrong = [
        f"{short(path)}:{line} imports {name}"
        for line, name in imported_names(path)
        if name.startswith("sarm_control.") and name.split(".")[1] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_files_are_short(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= MAX_FILE_LINES


def test_no_function_is_long() -> None:
    assert not [f"{name}: {lines} lines" for name, lines in functions() if lines > MAX_FUNCTION_LINES]


def test_functions_are_short_in_the_middle_and_in_the_tail() -> None:
    lengths = [lines for _, lines in functions()]
    assert statistics.median(lengths) <= MAX_MEDIAN_FUNCTION_LINES
    assert statistics.quantiles(lengths, n=10)[-1] <= MAX_P90_FUNCTION_LINES


def undocumented(path: Path) -> Iterator[str]:
    def visit(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None and not _is_overload(node):
                yield f"{short(path)}:{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from visit(node.body, f"{node.name}.")

    yield from visit(tree_of(path).body, "")


def _is_overload(node: ast.stmt) -> bool:
    return any("overload" in ast.unparse(d) for d in getattr(node, "decorator_list", []))


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_everything_public_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))
    assert not list(undocumented(path))


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = text_of(path)
    assert not re.findall(r"\b(?:TODO|FIXME|XXX)\b|NotImplementedError", text)
    swallowed = [
        f"{short(path)}:{node.lineno}"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(s, ast.Pass) for s in node.body)
    ]
    assert not swallowed


# A damaged file is an error in one line because one reader knows every limit. What is named here reads
# something else than a file that a user gives.
READERS = {"bounded_json.py", "bounded_yaml.py"}
READ_OTHERWISE = {
    "sarm/model_fingerprint.py": "the header of a safetensors file, whose length is in the file",
    "sarm/saving.py": "text that transformers has just written",
}


def parsed_unbounded(path: Path) -> Iterator[str]:
    """Calls that take JSON or YAML of any size and depth."""
    unbounded = {"json": {"load", "loads"}, "yaml": {"load", "safe_load", "load_all", "compose", "parse"}}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = node.func.value, node.func.attr
            if isinstance(owner, ast.Name) and name in unbounded.get(owner.id, ()):
                yield f"{short(path)}:{node.lineno} {owner.id}.{name}"


@pytest.mark.parametrize("path", SOURCES, ids=short)
def test_json_and_yaml_are_read_within_limits(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    assert name in {*READERS, *READ_OTHERWISE} or not list(parsed_unbounded(path))


@pytest.mark.parametrize("name", READ_OTHERWISE)
def test_no_exemption_is_left_of_a_reader_that_is_gone(name: str) -> None:
    assert list(parsed_unbounded(PACKAGE / name))


def test_the_search_for_unbounded_readers_finds_the_one_there_is() -> None:
    """Guards the test above."""
    assert list(parsed_unbounded(PACKAGE / "bounded_json.py"))


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every tracked text file; every file when there is no git (an unpacked archive)."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or [p for p in ROOT.rglob("*") if ".venv" not in p.parts]
    for path in paths:
        if path.is_file() and path != Path(__file__).resolve():
            raw = path.read_bytes()
            if b"\0" not in raw[:4096]:
                yield path, raw.decode("utf-8", errors="replace")


def test_no_machine_paths_and_no_registry_hosts() -> None:
    machine = re.compile(r"(?<![\w.])/(?:work|home|Users|root)/\w")
    hosts = re.compile(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs\.org|/simple\b/")
    wrong = [
        f"{short(path)}: {match.group()}"
        for path, text in tracked_texts()
        for match in (*machine.finditer(text), *hosts.finditer(text))
    ]
    assert not wrong


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def code_in(markdown: str) -> str:
    """The code spans and fenced blocks of a page, one a line."""
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", markdown)])


@pytest.mark.parametrize(
    "path", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))], ids=short
)
def test_docs_name_only_make_targets_that_exist(path: Path) -> None:
    named = re.findall(r"^\s*(?:\$ )?make ([a-z][\w-]*)", code_in(text_of(path)), re.MULTILINE)
    assert set(named) <= make_targets()


def test_the_docs_name_the_make_targets_at_all() -> None:
    """Guards the test above: its pattern must find something in CONTRIBUTING.md."""
    found = re.findall(r"^make ([a-z][\w-]*)", code_in((ROOT / "CONTRIBUTING.md").read_text()), re.MULTILINE)
    assert {"test", "lint", "types"} <= set(found)
