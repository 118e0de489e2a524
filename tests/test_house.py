"""The house rules of CONTRIBUTING.md, read off the files themselves."""

import ast
import functools
import importlib
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "sarm_control"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Data flows one way: a part imports only from itself and from those before it.
ORDER = (
    "errors",
    "extras",
    "seeds",
    "lazy",
    "notebooks",
    "embedded",
    "console",
    "locks",
    "bounded_json",
    "bounded_yaml",
    "files",
    "process_group",
    "data",
    "conversation",
    "reward_model",
    "latents",
    "statistics",
    "charts",
    "pages",
    "control",
    "discovery",
    "training",
    "evaluation",
    "comparison",
    "auditing",
    "build",
    "attaching",
    "lab",
    "study",
    "planning",
    "report",
    "engines",
    "server",
    "explorer",
    "publishing",
    "functions",
    "cli",
)
# The package's own door re-exports from every part, and `python -m` opens the command.
DOORS = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}

MAX_FILE_LINES = 600
MAX_FILES_IN_A_ROOM = 12
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
    """The first name below the package: `reward_model/scored.py` and `sarm/` belong to `sarm`."""
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


def inside() -> list[Path]:
    """Every source file but the package's own doors."""
    return [path for path in SOURCES if path not in DOORS]


def test_every_part_is_in_the_order() -> None:
    assert not [short(path) for path in inside() if part_of(path) not in ORDER]


def test_imports_go_one_way() -> None:
    assert not [
        f"{short(path)}:{line} imports {name}"
        for path in inside()
        for line, name in imported_names(path)
        if name.startswith("sarm_control.")
        and name.split(".")[1] in ORDER
        and ORDER.index(name.split(".")[1]) > ORDER.index(part_of(path))
    ]


# Methods that only show, and stand where users look for them; see `lazy.of_later_room`.
SHOWN_BY_LATER_ROOMS = {("reward_model/reward_model.py", "explorer", "open_bench")}


def test_only_methods_that_show_reach_into_later_rooms() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), *(ast.literal_eval(argument) for argument in node.args))
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "of_later_room"
    }
    assert found == SHOWN_BY_LATER_ROOMS


def test_no_part_goes_through_the_lazy_door() -> None:
    """`from sarm_control import RewardModel` inside the package would hide the direction."""
    allowed = {"__version__", *ORDER}
    assert not [
        f"{short(path)}:{line} imports {name}"
        for path in inside()
        for line, name in imported_names(path)
        if name.startswith("sarm_control.") and name.split(".")[1] not in allowed
    ]


def is_room(part: str) -> bool:
    return (PACKAGE / part / "__init__.py").exists()


def test_other_rooms_are_entered_by_their_door() -> None:
    """What a room lets others use stands in its `__init__.py`: the rest may change without asking."""
    assert not [
        f"{short(path)}:{line} imports {name}"
        for path in inside()
        for line, name in imported_names(path)
        if name.startswith("sarm_control.")
        and name.split(".")[1] != part_of(path)
        and is_room(name.split(".")[1])
        and len(name.split(".")) > 3
    ]


def test_no_door_gives_a_name_that_a_file_of_the_room_has() -> None:
    """Python sets an imported file as an attribute of its package: it would hide what the door gives."""
    assert not [
        f"{room.name}: {name}"
        for room in PACKAGE.iterdir()
        if is_room(room.name)
        for name in getattr(importlib.import_module(f"sarm_control.{room.name}"), "__all__", ())
        if (room / f"{name}.py").exists() or (room / name).is_dir()
    ]


OPTIONAL = {
    *("accelerate", "altair", "anywidget", "datasets", "densratio", "fastapi", "gguf", "httpx"),
    *("markdown_it", "pandas", "peft", "polars", "prometheus_client", "ray", "sae_lens", "starlette"),
    *("statsmodels", "tenacity", "tensorboard", "trackio", "trl", "uvicorn", "verl", "vl_convert"),
}
# Loaded only by who has the extra: the server, a plugin of verl, and a layer that is a class of peft's.
OF_AN_EXTRA = ("server/", "explorer/", "engines/verl_manager.py", "training/policy/lora_linear.py")


def test_packages_of_extras_are_imported_inside_functions() -> None:
    """Without any extra everything else has to load."""
    assert not [
        f"{short(path)}:{node.lineno}"
        for path in SOURCES
        if not path.relative_to(PACKAGE).as_posix().startswith(OF_AN_EXTRA)
        for node in tree_of(path).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        if name.split(".")[0] in OPTIONAL
    ]


def test_files_are_short() -> None:
    assert not [short(path) for path in SOURCES if len(text_of(path).splitlines()) > MAX_FILE_LINES]


def test_rooms_have_few_files() -> None:
    """The commands are a list that everybody knows: one file each, however many there are."""
    count: dict[Path, int] = {}
    for path in SOURCES:
        if path.name != "__init__.py" and part_of(path) != "cli":
            count[path.parent] = count.get(path.parent, 0) + 1
    assert not {short(room): files for room, files in count.items() if files > MAX_FILES_IN_A_ROOM}


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


def test_everything_public_has_a_docstring() -> None:
    assert not [short(path) for path in SOURCES if not ast.get_docstring(tree_of(path))]
    assert not [found for path in SOURCES for found in undocumented(path)]


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(?:TODO|FIXME|XXX)\b|NotImplementedError")
    assert not [f"{short(path)}: {found}" for path in SOURCES for found in later.findall(text_of(path))]
    assert not [
        f"{short(path)}:{node.lineno} swallows an error"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(s, ast.Pass) for s in node.body)
    ]


# A damaged file is an error in one line because one reader knows every limit. What is named here reads
# something else than a file that a user gives.
READERS = {"bounded_json.py", "bounded_yaml.py"}
READ_OTHERWISE = {
    "reward_model/files/model_fingerprint.py": "the header of a safetensors file, of a length it names",
    "reward_model/files/saving.py": "text that transformers has just written",
}


def parsed_unbounded(path: Path) -> Iterator[str]:
    """Calls that take JSON or YAML of any size and depth."""
    unbounded = {"json": {"load", "loads"}, "yaml": {"load", "safe_load", "load_all", "compose", "parse"}}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = node.func.value, node.func.attr
            if isinstance(owner, ast.Name) and name in unbounded.get(owner.id, ()):
                yield f"{short(path)}:{node.lineno} {owner.id}.{name}"


def test_json_and_yaml_are_read_within_limits() -> None:
    exempt = {*READERS, *READ_OTHERWISE}
    others = [path for path in SOURCES if path.relative_to(PACKAGE).as_posix() not in exempt]
    assert not [found for path in others for found in parsed_unbounded(path)]


def test_no_exemption_is_left_of_a_reader_that_is_gone() -> None:
    assert not [name for name in READ_OTHERWISE if not list(parsed_unbounded(PACKAGE / name))]


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


def test_docs_name_only_make_targets_that_exist() -> None:
    target = re.compile(r"^\s*(?:\$ )?make ([a-z][\w-]*)", re.MULTILINE)
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    named = {(short(page), name) for page in pages for name in target.findall(code_in(text_of(page)))}
    assert not {(page, name) for page, name in named if name not in make_targets()}


def test_the_docs_name_the_make_targets_at_all() -> None:
    """Guards the test above: its pattern must find something in CONTRIBUTING.md."""
    found = re.findall(r"^make ([a-z][\w-]*)", code_in((ROOT / "CONTRIBUTING.md").read_text()), re.MULTILINE)
    assert {"test", "lint", "types"} <= set(found)


def test_the_picture_of_the_rooms_is_of_today() -> None:
    """`python scripts/architecture.py` draws it anew."""
    script = ROOT / "scripts" / "architecture.py"
    assert subprocess.run([sys.executable, str(script), "--check"], check=False).returncode == 0
