"""What the documents say happens: contract tests of every code block, command, option and link in them.

`documents.py` says what a block may be and which comments change how it is checked. The documents
run in the embedded world, offline; without its files these tests fail.
"""

import importlib
import json
import re
from pathlib import Path

import pytest

from tests.documents import (
    ROOT,
    Block,
    Document,
    DocumentError,
    blocks_of,
    check_span,
    documents,
    links_of,
    short,
    spans_of,
)

DOCUMENTS = documents()
pytestmark = pytest.mark.usefixtures("no_network")

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=short)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with a cache and a terminal that depend on no machine."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return place


WANTED = {
    "building.md": ("sae_lens",),
    "engines.md": ("datasets", "trl"),
    "metrics.md": ("accelerate", "tensorboard"),
    "notebooks.md": ("anywidget", "pandas"),
    "reward-models.md": ("sae_lens",),
}
"""What the blocks of a page need beyond the extras of the oldest end (`tests/version_ends.py`)."""


LONG = ("README", "auditing", "building", "discovery", "first-steps", "human-kl", "latents", "training")
"""Pages whose commands take more than ten seconds together; `make test-long` runs them."""


@pytest.mark.long
@pytest.mark.parametrize(
    "path",
    [pytest.param(one, marks=pytest.mark.long if one.stem in LONG else ()) for one in DOCUMENTS],
    ids=short,
)
def test_every_block_does_what_the_document_says(path: Path, folder: Path) -> None:
    for package in WANTED.get(path.name, ()):
        pytest.importorskip(package, reason=f"{path.name} shows what needs {package}")
    Document(path.read_text(encoding="utf-8"), short(path), folder).run()


@pytest.mark.minutes
@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if "<!-- minutes:" in path.read_text()], ids=short
)
def test_blocks_of_minutes_do_what_the_document_says(path: Path, folder: Path) -> None:
    Document(path.read_text(encoding="utf-8"), short(path), folder, minutes=True).run()


@each_document
def test_commands_and_options_named_in_sentences_exist(path: Path) -> None:
    where = Block(short(path), 1, "", "", {})
    for span in spans_of(path.read_text(encoding="utf-8")):
        check_span(span, where)


@each_document
def test_links_lead_to_files(path: Path) -> None:
    missing = [
        link for link in links_of(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()
    ]
    assert not missing


def test_there_are_documents_and_they_run_commands() -> None:
    """A collector that finds nothing would pass everything above."""
    run = {
        short(path): sum(
            bool(re.search(r"^sarm ", block.text, re.MULTILINE)) and "not run" not in block.markers
            for block in blocks_of(path.read_text(encoding="utf-8"), short(path))
        )
        for path in DOCUMENTS
    }
    pages = (
        "README.md",
        "docs/scoring.md",
        "docs/building.md",
        "docs/discovery.md",
        "docs/training.md",
        "docs/lab.md",
    )
    assert all(run[page] >= 1 for page in pages)
    assert sum(run.values()) >= 15


def tables_of(text: str) -> list[list[str]]:
    """The Markdown tables, each as its head and its rows sorted; the order of rows is the document's."""
    tables = [found[0].splitlines() for found in re.finditer(r"(?:^\|.*\n?)+", text, re.MULTILINE)]
    return [[*lines[:2], *sorted(lines[2:])] for lines in tables]


def test_the_tables_of_the_labs_study_are_those_of_its_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """What benchmarks/lab_tables.py prints of the study's runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    results = (ROOT / "benchmarks" / "results" / "lab.json").read_text(encoding="utf-8")
    printed = importlib.import_module("lab_tables").text(json.loads(results))
    page = (ROOT / "docs" / "results" / "lab.md").read_text(encoding="utf-8")
    _, found = page.split("## What came out\n")
    shown, known = tables_of(found.partition("\n## ")[0]), tables_of(printed)
    assert len(shown) == 5
    assert [table for table in shown if table not in known] == []


# --- the runner itself: what is wrong in a document is found ---


def fenced(text: str, info: str = "", *markers: str) -> str:
    return "\n".join([*(f"<!-- {marker} -->" for marker in markers), f"```{info}", text, "```", ""])


SETTINGS = "sarm config show --steps 7"

WRONG = {
    "an unknown option": (fenced("sarm config show --stepz 7"), r"exit code 2 of sarm config show --stepz 7"),
    "an unknown command": (fenced("sarm confog"), r"unknown command confog"),
    "a missing file": (fenced("sarm score nowhere.jsonl"), r"nowhere\.jsonl"),
    "another output": (
        fenced(SETTINGS) + fenced("steps: 8\n...", "text"),
        r"where the document says\nsteps: 8",
    ),
    "less output": (fenced(SETTINGS) + fenced("...\n  steps: 7", "text"), r"prints"),
    "another exit code": (fenced(SETTINGS, "", "exits with: 2"), r"exit code 0 of sarm config show"),
    "no output": (fenced(SETTINGS) + "\n" + fenced("x", "text"), r"prints\n"),
    "output that nobody checks": ("A sentence.\n\n" + fenced("x", "text"), r"right behind the block"),
    "output behind a sentence": (
        fenced(SETTINGS) + "This:\n" + fenced("...", "text"),
        r"right behind the block",
    ),
    "output of what is not run": (
        fenced(SETTINGS, "", "not run: a reason") + fenced("...", "text"),
        r"a block that is not run has no output",
    ),
    "no reason": (fenced("sarm verify x.jsonl", "", "not run"), r'"not run:" has to say what'),
    "an empty reason": (fenced("sarm verify x.jsonl", "", "not run:"), r'"not run:" has to say what'),
    "no reason for minutes": (fenced("sarm verify x.jsonl", "", "minutes:"), r'"minutes:" has to say what'),
    "an unknown option, not run for its minutes": (
        fenced("sarm verify x.jsonl --modle m", "", "minutes: a reason"),
        r"Unknown option: --modle",
    ),
    "code for another program that is no Python": (fenced("x = = 1", "py"), r"no Python: invalid syntax"),
    "Python that is none": (fenced("x = = 1", "python"), r"no Python: invalid syntax"),
    "an unknown marker": (
        fenced("sarm verify x.jsonl", "", "skip: slow"),
        r"marker not understood: skip: slow",
    ),
    "an unknown option, not run": (
        fenced("sarm verify x.jsonl --modle m", "", "not run: a reason"),
        r"Unknown option: --modle",
    ),
    "an unknown setting, not run": (
        fenced("sarm train --set training.stepz=1", "", "not run: a reason"),
        r"unknown key 'stepz'",
    ),
    "a penalty nobody can read, not run": (
        fenced("sarm train --penalize 4:tua=1", "", "not run: a reason"),
        r"unknown key 'tua'",
    ),
    "an edit nobody can read, not run": (
        fenced("sarm score --edit 4:maxi=1", "", "not run: a reason"),
        r"sarm score --edit 4:maxi=1",
    ),
    "a required argument left out, not run": (fenced("sarm convert x", "", "not run: a reason"), r"--out"),
    "options for a command that is not there": (
        fenced(SETTINGS, "", "run with: train --steps 2"),
        r"no sarm train in",
    ),
    "an open quote": (fenced("sarm config show --set 'x"), r"no shell would read this"),
    "something else than a command": (fenced("rm -r runs"), r"no rule for rm -r runs"),
    "a target that make has not": (fenced("make tests"), r"make tests: there is no tests"),
    "a script that is not there": (fenced("python scripts/nothing.py"), r"there is no scripts/nothing\.py"),
    "an option a script has not": (fenced("python scripts/real_text.py --foo"), r"there is no --foo"),
    "an extra that is not there": (fenced('pip install ".[everything]"'), r"there is no \.\[everything\]"),
    "a release that is not there": (fenced('pip install "sarm-control[rl]"'), r"there is no sarm-control"),
    "Python that fails": (fenced("x = 1\nassert x == 2", "python"), r"AssertionError"),
    "Python that prints another thing": (fenced("print(1)", "python") + fenced("2", "text"), r"prints\n1"),
    "an import that fails, not run": (
        fenced("from sarm_control import Nothing", "python", "not run: a reason"),
        r"ImportError",
    ),
    "a run file with a mistake": (fenced("training: {stepz: 3}", "yaml"), r"stepz"),
    "controls with a mistake": (fenced("penalties: [4:tua=1]", "yaml"), r"tua"),
    "no JSON": (fenced('{"prompt": }', "json"), r"no JSON"),
    "a kind of block without a rule": (fenced("x", "rust"), r'no rule for a block of "rust"'),
    "a fence that is not closed": ("```\nsarm score", r"never closed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_found(name: str, folder: Path) -> None:
    text, message = WRONG[name]
    with pytest.raises(DocumentError, match=rf"(?s)^bad\.md:\d+: .*{message}"):
        Document(text, "bad.md", folder).run()


def test_golden_a_document_without_mistakes_passes(folder: Path) -> None:
    text = (
        "# Title\n\n"
        + fenced(
            "policy: {model: lab}\nreward: {model: lab}\ndata: {prompts: p.jsonl}\ntraining:\n  steps: 3",
            "yaml",
            "file: run.yaml",
        )
        + fenced(
            "# a comment\nsarm config show \\\n    run.yaml  # another", "", "run with: config show --seed 5"
        )
        + fenced("policy:\n...\n  steps: 3\n...\n  seed: 5\n...", "text")
        + "\n- in a list:\n\n  ```python\n  x = 2\n  ```\n\n"
        + fenced("print(x + 1)", "python")
        + "\n"
        + fenced("3", "text")
        + fenced('{"a": 1}\n{"a": 2}', "json")
        + fenced("edits: ['5:max=2']", "yaml")
        + fenced("sarm config show --steps -1", "sh", "exits with: 2")
        + fenced("error: --steps -1...", "text")
        + fenced("sarm score --model some/where x.jsonl", "", "not run: no such model")
        + fenced("make test lint\npip install -c constraints.txt '.[rl,build]'\npython benchmarks/scoring.py")
    )
    Document(text, "good.md", folder).run()


def test_a_block_of_minutes_runs_only_where_minutes_are_given(folder: Path) -> None:
    text = fenced("sarm score nowhere.jsonl", "", "minutes: a reason") + fenced("z = undefined", "py")
    Document(text, "good.md", folder).run()
    (folder / "again").mkdir()
    with pytest.raises(DocumentError, match=r"nowhere\.jsonl"):
        Document(text, "bad.md", folder / "again", minutes=True).run()


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ("sarm train --resmue", "there is no --resmue"),
        ("sarm trian", "no such command"),
        ("sarm lab make", "no such command"),
        ("--reusme", "no command has an option --reusme"),
        ("make everything", "there is no everything"),
    ],
)
def test_a_mistake_in_a_sentence_is_found(span: str, message: str) -> None:
    (found,) = spans_of(f"Type `{span.replace(' ', chr(10), 1)}`.\n\n```\n`not this`\n```\n")
    with pytest.raises(DocumentError, match=message):
        check_span(found, Block("bad.md", 1, "", "", {}))


def test_golden_sentences_may_be_incomplete() -> None:
    for span in (
        "sarm build",
        "sarm COMMAND --help",
        "sarm convert FOLDER -o NEW",
        "--no-sentence-states",
        "make test",
        "z",
    ):
        check_span(span, Block("good.md", 1, "", "", {}))
