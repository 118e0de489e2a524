"""Commands without a model or data: golden (what stands in, and the remark), bad input.

Real runs in the embedded world, with every connection refused.
"""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from sarm_control.cli import main
from sarm_control.embedded import data_file, world_folder
from sarm_control.files import sha256_file

ROOT = Path(__file__).parents[2]
CHECKOUT = str(world_folder().parents[3])
STAND_IN = "no {} given: the embedded lab, a tiny world for trying things out\n"
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_network")]


class Outcome(NamedTuple):
    """What one command returned and printed."""

    code: int
    out: str
    err: str


def sarm(*words: object) -> Outcome:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def done(*words: object) -> Outcome:
    outcome = sarm(*words)
    assert outcome.code == 0, outcome.err
    return outcome


class Session(NamedTuple):
    """A folder in which every command was run once, and what each printed."""

    folder: Path
    score: Outcome
    discover: Outcome
    train: Outcome
    compare: Outcome
    verify: Outcome


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, no_network: None) -> Session:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("session")
    run = folder / "run"
    (folder / "human.jsonl").write_text("".join(rows("lab:human")[:30]))
    done("--quiet", "score", folder / "human.jsonl", "-o", folder / "recorded.jsonl")
    return Session(
        folder,
        score=done("score", "lab:audit", "-o", folder / "scores.jsonl", "--json", folder / "summary.json"),
        discover=done("discover", "-o", folder / "found", "--write-controls", folder / "controls.yaml"),
        train=done(
            "train", ROOT / "examples" / "lab_plain.yaml", "--controls", folder / "controls.yaml",
            "--human", "lab:human", "--beta", "0.1sd", "--exclude", "lab:held_out_prompts",
            "--set", "training.prompts_per_step=8", "--set", "training.reference_answers=32",
            "--steps", 2, "-o", run, "--json", folder / "train.json",
        ),
        compare=done("compare", run, "--gold", "lab", "--json", folder / "report.json"),
        verify=done("verify", folder / "recorded.jsonl"),
    )  # fmt: skip


def rows(name: str) -> list[str]:
    return data_file(Path(name)).read_text(encoding="utf-8").splitlines(keepends=True)


def manifest(path: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return written


def test_score_takes_the_lab_and_says_so(session: Session) -> None:
    assert session.score.err.startswith(STAND_IN.format("--model") + "lab: ")
    assert len((session.folder / "scores.jsonl").read_text().splitlines()) == len(rows("lab:audit"))
    record = manifest(session.folder / "scores.jsonl.manifest.json")
    assert record["inputs"] == {"lab:audit": sha256_file(world_folder() / "audit.jsonl")}
    assert record["config"]["model"] == manifest(session.folder / "summary.json")["model"] == "lab"


def test_discover_takes_the_model_and_the_pairs_of_the_lab(session: Session) -> None:
    assert session.discover.err.startswith(STAND_IN.format("--model or pairs"))
    record = manifest(session.folder / "found" / "manifest.json")
    assert record["inputs"].keys() == {"lab:audit"}
    assert record["config"]["goal"] == "chosen over rejected in lab:audit"
    assert "harms" in session.discover.out


def test_discover_warns_that_a_share_of_a_margin_that_may_be_zero_is_no_size(tmp_path: Path) -> None:
    """The lab pays its audit pairs' better and worse answers about alike: 100 pairs show no difference."""
    (tmp_path / "audit.jsonl").write_text("".join(rows("lab:audit")[:100]))
    files = ["-o", tmp_path / "found", "--write-controls", tmp_path / "controls.yaml"]
    words = ["discover", tmp_path / "audit.jsonl", *files]
    found = done(*words)
    warnings = [line for line in found.err.splitlines() if "--material" in line]
    assert len(warnings) == 1
    assert re.fullmatch(
        r"warning: the mean margin \S+ \[-\S+, \+\S+\] may be 0, so --material 0\.01, a share of it, says "
        r"little; --material-sd sets a least effect in SDs",
        warnings[0],
    )
    again = done(*words, "--overwrite", "--material", 0, "--material-sd", 0.005)
    assert "--material" not in again.err


def test_a_run_keeps_names_and_no_places(session: Session) -> None:
    config = yaml.safe_load((session.folder / "run" / "config.yaml").read_text())
    assert (config["policy"]["model"], config["reward"]["model"]) == ("lab", "lab")
    names = [config["data"]["prompts"], config["data"]["human"], *config["data"]["exclude"]]
    assert names == ["lab:train_prompts", "lab:human", "lab:held_out_prompts"]
    assert manifest(session.folder / "run" / "manifest.json")["inputs"].keys() == set(names)
    assert "no --" not in session.train.err
    assert "0 prompts left out because they are in lab:held_out_prompts" in session.train.err


def test_compare_takes_the_held_out_prompts_of_the_lab(session: Session) -> None:
    assert STAND_IN.format("--prompts") in session.compare.err
    assert "trained on" not in session.compare.err
    report = manifest(session.folder / "report.json")
    assert report["settings"]["prompts_file"] == "lab:held_out_prompts"
    assert (report["settings"]["base_policy"], report["settings"]["reward_model"]) == ("lab", "lab")
    answers = (session.folder / "run" / "compare" / "answers.jsonl").read_text().splitlines()
    assert all("gold" in json.loads(line) for line in answers)


def test_verify_takes_the_lab(session: Session) -> None:
    assert session.verify.err.startswith(STAND_IN.format("--model"))
    assert session.verify.out.endswith("\nverified\n")


def test_nothing_written_or_printed_says_where_the_package_lies(session: Session) -> None:
    printed = "".join(outcome.out + outcome.err for outcome in session[1:])
    assert CHECKOUT not in printed
    files = [path for path in session.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path.name for path in files if CHECKOUT.encode() in path.read_bytes()] == []


def test_train_without_anything_plans_a_run_in_the_lab() -> None:
    outcome = done("train", "--dry-run")
    assert outcome.err.startswith(STAND_IN.format("--policy, --model or --prompts"))
    assert "\npolicy lab, LoRA rank 16; reward lab\n" in outcome.err
    assert done("--quiet", "train", "--dry-run").err == ""


def test_what_is_named_gets_no_remark(session: Session) -> None:
    flags = ["--policy", "lab", "--model", "lab", "--prompts", "lab:train_prompts"]
    assert done("train", *flags, "--dry-run").err.startswith("policy lab")
    assert done("config", "show", *flags).err == f"next: sarm train {' '.join(flags)} --dry-run\n"
    named = done("verify", "--model", "lab", session.folder / "recorded.jsonl")
    assert named.err.startswith("lab: ")
    assert named.out == session.verify.out


def test_build_cuts_the_embedded_policy(tmp_path: Path) -> None:
    pytest.importorskip("sae_lens", reason='`sarm build --base` wants the extra "build"')
    (tmp_path / "pairs.jsonl").write_text("".join(rows("lab:preferences")[:60]))
    sizes = ["--layer", "1", "--latents", "16", "--k", "4", "--steps", "40", "--batch", "32"]
    places = ["--pairs", tmp_path / "pairs.jsonl", "--cache", tmp_path / "cache", "-o", tmp_path / "sarm"]
    done("build", "--base", "lab", *sizes, *places, "--no-sentence-states")
    record = manifest(tmp_path / "sarm" / "manifest.json")
    assert record["config"]["base"] == "lab"
    assert CHECKOUT not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    done("score", "--model", tmp_path / "sarm", tmp_path / "pairs.jsonl")


def test_a_model_in_a_folder_called_lab_is_told_apart(
    tmp_path: Path, tiny_sarm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").symlink_to(tiny_sarm_folder, target_is_directory=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lab").mkdir()
    for file in tiny_sarm_folder.iterdir():
        (tmp_path / "elsewhere" / "lab" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why ?", "response": "no"}\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    named = {"lab": "lab", "./lab": "./lab", "../lab": "tiny-sarm"}
    for written, shown in named.items():
        assert done("score", "--model", written, "../rows.jsonl").err.startswith(f"{shown}: ")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("score", "no file of answers was given", "sarm score lab:audit -o scores.jsonl"),
        (
            "score lab:audti",
            "lab:audti: the embedded world has no such file",
            "lab:audit, lab:demonstrations",
        ),
        ("score lab:train_prompts", "lab:train_prompts:1: no answer field", None),
        ("score lab:audit -o lab:audit", "lab:audit is an input too", None),
        ("discover --model {sarm} -o new", "no file of pairs was given", "sarm discover --model M"),
        ("discover lab:human -o new", "lab:human:1: no answer field", None),
        ("train --policy {policy} -o new", "settings: missing key 'data.prompts'", "--prompts prompts.jsonl"),
        ("train --prompts lab:prompts -o new", "lab:prompts: the embedded world has no such file", None),
        ("train --edit 5000=0 -o new", "latent 5000 does not exist: this reward model has", None),
        ("compare {run} -o new", "no held-out prompts were given", "--prompts held_out.jsonl"),
        ("compare {run} --prompts lab:truth -o new", "lab:truth: the embedded world has no such file", None),
        ("build -o new", "give either --base", "sarm build --base lab"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    words: str, message: str, hint: str | None, session: Session, tiny_sarm_folder: Path,
    tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    places = {"sarm": tiny_sarm_folder, "policy": tiny_policy_folder}
    if "{run}" in words:
        places["run"] = with_another_policy(session.folder / "run", tmp_path.with_suffix(".run"))
    outcome = sarm(*words.format(**places).split())
    assert outcome.code == 2
    (error,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert message in error
    assert hint is None or hint in outcome.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def with_another_policy(run: Path, folder: Path) -> Path:
    """The same run, said to be of another base policy."""
    shutil.copytree(run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["policy"]["model"] = "models/another"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder
