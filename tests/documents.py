"""Runs what the documents say: their fenced blocks, in order, in one working folder a document.

What the word behind a fence's backticks makes of a block:

- none, `sh`, `console`: commands, one a line, a backslash at the end goes on. `sarm` runs in this process and
  has to end with 0; what `make`, `pip` and `python` name (target, extra, script, option) has to exist.
- `python`: executed; the blocks of a document share one namespace.
- `yaml`: a run file or a file of controls, read by the loader of `sarm train`; `attributes.yaml` by that of
  `sarm audit`.
- `json`: one value, or one a line.
- `py`: code for other programs; it has to compile.
- `shell`: lines for other programs; only their own documents know whether they are right.
- `text`: right behind a command or python block, what that prints (stdout and stderr together), where
  `...` stands for anything. Anywhere else it is an error: nobody would check it.

A comment on the line before a fence changes that:

- `<!-- not run: REASON -->`: commands are parsed (an unknown option fails) and the imports of Python tried.
- `<!-- minutes: REASON -->`: the same, except in `make slow`, where the block is run.
- `<!-- run with: [COMMAND] OPTIONS -->`: more options for the block's `sarm` commands (of one name).
- `<!-- file: NAME -->`: the block is written to NAME, for the commands that follow.
- `<!-- exits with: N -->`: every `sarm` command of the block has to end with N.

Documents under `docs/results` are records of what was run once: there everything is checked as `not run`.
"""

import ast
import contextlib
import dataclasses
import doctest
import io
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, ArgumentCollection, CycloptsError

from sarm_control.cli import build_app, main
from sarm_control.cli._run_flags import RunFlags
from sarm_control.control import parse_edit
from sarm_control.errors import SarmError
from tests.present import present

ROOT = Path(__file__).resolve().parents[1]
RECORDS = "docs/results/"
COMMANDS = ("", "sh", "bash", "console")
FOREIGN = "shell"
LAUNCHERS = ("accelerate", "torchrun")
MARKERS = ("not run", "minutes", "run with", "file", "exits with")
RUN_SECTIONS = {"policy", "data", "training", "checkpoints", "evaluation"}
QUIET = {"--quiet", "-q"}
ANYWHERE = {"--help", "--help-all", "--version", *QUIET}


class DocumentError(AssertionError):
    """Something in a document is not so; begins with the document and line."""


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its fence, counted from 1."""

    where: str
    line: int
    info: str
    text: str
    markers: dict[str, str]
    expected: str | None = None

    def fail(self, problem: str) -> DocumentError:
        return DocumentError(f"{self.where}:{self.line}: {problem}")


class Ran(NamedTuple):
    code: int
    output: str


def documents() -> list[Path]:
    """README, CONTRIBUTING, everything under docs/ and what the examples say of themselves."""
    folders = (sorted((ROOT / name).rglob("*.md")) for name in ("docs", "examples"))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *itertools.chain(*folders)]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


# --- what is in a document ---


def blocks_of(text: str, where: str) -> list[Block]:
    """The fenced blocks in order; expected output is attached to the block that prints it."""
    found: list[Block] = []
    behind = 0
    for block, before, end in _fences(text.splitlines(), where):
        if block.info == "text":
            last = found[-1] if found else None
            if last is None or before != behind or last.info not in (*COMMANDS, "python"):
                raise block.fail("a text block has to stand right behind the block that prints it")
            found[-1] = dataclasses.replace(last, expected=block.text)
        else:
            found.append(block)
        behind = end
    return found


def _fences(lines: list[str], where: str) -> Iterator[tuple[Block, int, int]]:
    """Each block, with the number of the last line that is not blank before it and of its closing fence."""
    number = 0
    while number < len(lines):
        opening = re.match(r"( *)(`{3,}|~{3,})\s*(\S*)", lines[number])
        if opening is None:
            number += 1
            continue
        indent, fence, info = opening.groups()
        start = number
        number += 1
        while number < len(lines) and lines[number].strip() != fence:
            number += 1
        markers = _markers(lines, start, where)
        body = "\n".join(line.removeprefix(indent) for line in lines[start + 1 : number])
        block = Block(where, start + 1, info, body, markers)
        if number == len(lines):
            raise block.fail("the fence is never closed")
        number += 1
        yield block, _last_line(lines, start), number


def _last_line(lines: list[str], number: int) -> int:
    while number and not lines[number - 1].strip():
        number -= 1
    return number


def _markers(lines: list[str], number: int, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    while number and (comment := re.fullmatch(r"\s*<!--(.*)-->\s*", lines[number - 1])):
        number -= 1
        name, _, value = (part.strip() for part in comment[1].partition(":"))
        if name not in MARKERS or name in found:
            raise DocumentError(f"{where}:{number + 1}: marker not understood: {comment[1].strip()}")
        if not value:
            raise DocumentError(f'{where}:{number + 1}: "{name}:" has to say what')
        found[name] = value
    return found


def spans_of(text: str) -> list[str]:
    """Code within sentences, line ends as spaces."""
    outside = re.sub(r"^( *)(`{3,}|~{3,}).*?^\1\2\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()).replace("\\|", "|") for span in re.findall(r"(?<!`)`([^`]+)`", outside)]


def links_of(text: str) -> list[str]:
    """Targets of links to other files."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


# --- running it ---


class Document:
    """One document and the folder its blocks run in; `minutes`: also blocks that take so long."""

    def __init__(self, text: str, where: str, folder: Path, *, minutes: bool = False) -> None:
        self.blocks = blocks_of(text, where)
        self.minutes = minutes
        self.record = where.startswith(RECORDS)
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        shutil.copytree(ROOT / "examples", folder / "examples")

    def run(self) -> None:
        """Runs or checks every block; the current folder has to be the document's.

        Raises:
            DocumentError: the first thing that is not as the document says.
        """
        for block in self.blocks:
            if "file" in block.markers:
                (self.folder / block.markers["file"]).write_text(block.text + "\n", encoding="utf-8")
            output = self._block(block)
            if block.expected is not None and not _matches(block.expected, output):
                raise block.fail(f"prints\n{output}\nwhere the document says\n{block.expected}")

    def _block(self, block: Block) -> str:
        if block.info in COMMANDS:
            return self._commands(block)
        if block.info == "python":
            return self._python(block)
        if block.info == "yaml":
            _read_yaml(block, self.folder)
        elif block.info == "json":
            _read_json(block)
        elif block.info == "py":
            _compiled(block)
        elif block.info != FOREIGN:
            raise block.fail(f'no rule for a block of "{block.info}"')
        return ""

    def _commands(self, block: Block) -> str:
        idle = self._idle(block)
        if idle and block.expected is not None:
            raise block.fail("a block that is not run has no output to compare")
        commands = _split(block)
        extra = _extra(block, commands)
        output = []
        for words in commands:
            if words[:1] != ["sarm"]:
                look_up(words, block)
            elif idle:
                parse(words[1:], block)
            else:
                output.append(_run([*words[1:], *extra(words)], block))
        return "".join(output)

    def _idle(self, block: Block) -> bool:
        later = "minutes" in block.markers and not self.minutes
        return "not run" in block.markers or later or self.record

    def _python(self, block: Block) -> str:
        tree = _compiled(block)
        if self._idle(block):
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                exec(compile(tree, block.where, "exec"), self.names)
            except Exception as error:
                raise block.fail(f"{type(error).__name__}: {error}") from error
        return printed.getvalue()


def _compiled(block: Block) -> ast.Module:
    try:
        tree = ast.parse("\n" * block.line + block.text, block.where)
        compile(tree, block.where, "exec")
    except SyntaxError as error:
        raise block.fail(f"no Python: {error}") from error
    return tree


def _split(block: Block) -> list[list[str]]:
    lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
    try:
        words = (re.sub(r"(^|\s+)#.*", "", line) for line in lines)
        return [shlex.split(line) for line in words if line.strip()]
    except ValueError as error:
        raise block.fail(f"no shell would read this: {error}") from error


def _extra(block: Block, commands: list[list[str]]) -> Any:
    """What `run with` adds to a command."""
    words = shlex.split(block.markers.get("run with", ""))
    name = next((number for number, word in enumerate(words) if word.startswith("-")), len(words))
    chosen = [
        command for command in commands if command[:1] == ["sarm"] and command[1 : name + 1] == words[:name]
    ]
    if words and not chosen:
        raise block.fail(f"run with: no sarm {' '.join(words[:name])} in this block")
    return lambda command: words[name:] if command in chosen else []


def _run(words: list[str], block: Block) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(words)
    output = printed.getvalue()
    if code != int(block.markers.get("exits with", 0)):
        raise block.fail(f"exit code {code} of sarm {shlex.join(words)}\n{output}")
    return output


def _matches(expected: str, output: str) -> bool:
    want, got = (
        "\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (expected, output)
    )
    return doctest.OutputChecker().check_output(want + "\n", got + "\n", doctest.ELLIPSIS)


def _read_yaml(block: Block, folder: Path) -> None:
    from sarm_control.study import load_study
    from sarm_control.training.config.validation import load_config
    from sarm_control.training.config.yaml_source import read_document

    if block.markers.get("file") == "attributes.yaml":
        from sarm_control.auditing import load_attributes

        load_attributes(folder / "attributes.yaml")
        return
    path = folder / f"block-{block.line}.yaml"
    path.write_text(block.text + "\n", encoding="utf-8")
    try:
        document = read_document(path)
        if "arms" in document.values:
            load_study(path)
        elif RUN_SECTIONS & set(document.values):
            load_config(path, [])
        else:
            load_config(None, [document if "reward" in document.values else document.under(("reward",))])
    except SarmError as error:
        raise block.fail(str(error)) from error


def _read_json(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        for line in filter(str.strip, block.text.splitlines()):
            try:
                json.loads(line)
            except ValueError as error:
                raise block.fail(f"no JSON: {line}") from error


# --- checking without running ---


def parse(words: list[str], block: Block) -> None:
    """Parses a command line as `sarm` would; settings, edits and penalties are read too."""
    try:
        own = [word for word in words if word not in QUIET]
        _, bound, *_ = build_app().parse_args(own, print_error=False, exit_on_error=False)
        flags = bound.arguments.get("flags")
        if isinstance(flags, RunFlags) and "..." not in words:
            with contextlib.redirect_stderr(io.StringIO()):
                dataclasses.replace(flags, controls=None).config(None)
        for edit in bound.arguments.get("edit") or ():
            parse_edit(edit)
    except (CycloptsError, SarmError) as error:
        raise block.fail(f"sarm {shlex.join(words)}: {' '.join(str(error).split())}") from error


def look_up(words: list[str], block: Block) -> None:
    """Whether what a line of make, pip or python names is there.

    Raises:
        DocumentError: it is not, or the line is of no kind known here.
    """
    program, *rest = words
    if program in LAUNCHERS and "sarm_control" in rest:
        parse(rest[rest.index("sarm_control") + 1 :], block)
        missing = [
            word for word in rest if word.endswith(".yaml") and "/" in word and not (ROOT / word).is_file()
        ]
    elif program == "make":
        missing = [word for word in rest if not re.search(rf"^{re.escape(word)}:", _makefile(), re.MULTILINE)]
    elif program == "python" and rest:
        script = ROOT / rest[0]
        source = script.read_text(encoding="utf-8") if script.is_file() else ""
        options = [word for word in rest[1:] if word.startswith("--") and word != "--help"]
        missing = [word for word in options if f'"{word}"' not in source] if source else rest[:1]
    elif program == "pip" and rest[:1] == ["install"]:
        missing = [word for word in rest[1:] if word not in ("-c", "-e") and not _installable(word)]
    else:
        raise block.fail(f"no rule for {shlex.join(words)}")
    if missing:
        raise block.fail(f"{shlex.join(words)}: there is no {', '.join(missing)}")


@cache
def _makefile() -> str:
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def _installable(word: str) -> bool:
    """A file of the repository, or the repository itself with extras it has."""
    own = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", word)
    if own is None:
        return (ROOT / word).is_file()
    extras = metadata("sarm-control").get_all("Provides-Extra") or []
    return set((own[1] or "").split(",")) - {""} <= set(extras)


def check_span(span: str, block: Block) -> None:
    """Checks code within a sentence: a command may be incomplete there, but what it names exists."""
    if span.startswith("--"):
        if present(re.match(r"--[a-z-]+", span))[0] not in all_options():
            raise block.fail(f"no command has an option {span}")
        return
    if not re.match(r"(sarm|make|pip|python) ", span):
        return
    words = shlex.split(span)
    if words[0] != "sarm":
        look_up(words, block)
    elif not words[1].isupper():
        _check_part(words[1:], block)


def _check_part(words: list[str], block: Block) -> None:
    chain, apps, rest = build_app().parse_commands([word for word in words if word not in ANYWHERE])
    inner = apps[-1]
    if words[0] not in ANYWHERE and (not chain or (rest and inner.default_command is None)):
        raise block.fail(f"sarm {' '.join(words)}: there is no such command")
    options = {word.partition("=")[0] for word in rest if word.startswith("-")}
    unknown = options - names_of(inner)
    if unknown:
        raise block.fail(f"sarm {' '.join(words)}: there is no {', '.join(sorted(unknown))}")


def names_of(app: App) -> set[str]:
    """The options of one command; none of a group of commands."""
    if app.default_command is None:
        return set()
    arguments: ArgumentCollection = app.assemble_argument_collection()
    names = {name for argument in arguments for name in (*argument.names, *argument.negatives)}
    return {name for name in names if name.startswith("-") and not name.startswith("--empty-")}


@cache
def all_options() -> frozenset[str]:
    """Every option of every command."""
    return frozenset(ANYWHERE | set(_options(build_app())))


def _options(app: App) -> Iterator[str]:
    for name in app:
        if not name.startswith("-"):
            inner = app[name]
            yield from names_of(inner)
            yield from _options(inner)
