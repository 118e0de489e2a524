"""Golden and metamorphic tests of `sarm demo`, offline, with one step an arm; messages of bad input."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.cli import _demo_story as story
from sarm_control.cli import main
from sarm_control.cli.demo import _replacing
from sarm_control.control import Controls
from sarm_control.embedded import world_folder
from sarm_control.files import replaced
from sarm_control.lab import Truth
from sarm_control.lab.study.study import judge
from sarm_control.statistics import MINUS

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("no_network")]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo, and what it printed."""
    import contextlib
    import io

    folder = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["-q", "demo", "--steps", "1", "-o", str(folder / "a"), "--json", str(folder / "a.json")])
    assert code == 0
    return folder, printed.getvalue()


def test_the_numbers_for_machines_are_those_of_the_report(shown: tuple[Path, str]) -> None:
    folder, _ = shown
    found = json.loads((folder / "a.json").read_text())
    assert list(found["arms"]) == ["none", "controls", "random"]
    report = json.loads((folder / "a" / "report" / "report.json").read_text())
    for arm in report["arms"]:
        measures = {row["key"]: row for row in arm["measures"]}
        ours = found["arms"][arm["name"]]
        assert ours["gold_end"] == measures["gold/reward"]["trained"]["mean"]
        assert ours["reward_model_start"] == measures["reward/model"]["base"]["mean"]
    assert Path(found["report"]).read_text().startswith("<!doctype html>")
    assert 0 <= found["discovery"]["recall"] <= 1
    assert set(found["discovery"]["latents"]) >= set(report["arms"][1]["controlled"])
    assert report["arms"][0]["controlled"] == []
    roles = {"none": "no control", "controls": "controlled", "random": "placebo"}
    assert {arm["name"]: arm["role"] for arm in report["arms"]} == roles
    written = {name: json.loads((folder / "a" / name / "manifest.json").read_text()) for name in roles}
    assert {name: manifest["role"] for name, manifest in written.items()} == roles
    # The placebo acts on other latents than those called.
    assert not set(report["arms"][2]["controlled"]) & set(found["discovery"]["latents"])


@pytest.mark.minutes
def test_the_same_seed_gives_the_same_numbers(shown: tuple[Path, str]) -> None:
    folder, _ = shown
    shutil.copytree(folder / "a", folder / "b")  # an earlier demo, which is replaced
    arguments = ["--steps", "1", "-o", str(folder / "b"), "--json", str(folder / "b.json")]
    assert main(["-q", "demo", *arguments]) == 0
    first, again = (json.loads((folder / f"{name}.json").read_text()) for name in "ab")
    for one in (first, again):
        del one["seconds"], one["report"]
    assert again == first


def test_the_story_has_its_steps_in_order_and_answers_both_questions(shown: tuple[Path, str]) -> None:
    folder, text = shown
    marks = [
        "1  What does",
        "because a policy",
        "2  Which latents",
        "so that a control",
        "3  Train",
        "4  Did it work",
    ]
    marks += ["Did the control work?", "What did it cost?", str(folder / "a" / "report" / "report.html")]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "nan" not in text
    assert MINUS not in text
    assert max(map(len, text.splitlines()[:-1])) <= 120


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a demo says that is refused before it tells anything."""
    assert main(["demo", "--steps", "1", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_folder_without_the_demos_manifest_is_kept_whatever_its_names(
    shown: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our documents call runs `none` and `controls`, so names say nothing."""
    kept = tmp_path / "runs" / "controls" / "metrics.jsonl"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    said = refused(capsys, "-o", str(tmp_path / "runs"))
    assert f"{tmp_path / 'runs'} holds other files than a demo's" in said
    assert "choose another folder with -o" in said
    (tmp_path / "runs" / "manifest.json").write_text('{"command": "train"}')
    assert "holds other files than a demo's" in refused(capsys, "-o", str(tmp_path / "runs"))
    assert kept.read_text() == "mine"
    # A file that somebody put into a demo's folder is kept with it.
    shutil.copytree(shown[0] / "a", tmp_path / "demo")
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    assert "holds other files than a demo's" in refused(capsys, "-o", str(tmp_path / "demo"))
    assert (tmp_path / "demo" / "none").is_dir()


def test_an_argument_that_cannot_be_used_is_told_before_an_earlier_demo_goes(
    shown: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The world, the seed, --json and the folder: nothing is deleted for a command that is refused."""
    folder = tmp_path / "demo"
    shutil.copytree(shown[0] / "a", folder)
    (tmp_path / "empty").mkdir()
    assert "holds no world" in refused(capsys, "-o", str(folder), "--lab", str(tmp_path / "empty"))
    assert "--json" in refused(capsys, "-o", str(folder), "--json", str(tmp_path))
    assert f"{tmp_path} is a folder" in refused(capsys, "-o", str(folder), "--json", str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, "-o", str(folder), "--json", str(tmp_path / "file" / "x.json"))
    assert "--seed" in refused(capsys, "-o", str(folder), "--seed", str(2**63))
    assert f"{tmp_path / 'file'} is a file" in refused(capsys, "-o", str(tmp_path / "file"))
    assert sorted(one.name for one in folder.iterdir()) == sorted(
        ["controls", "demo.json", "manifest.json", "none", "random", "report"]
    )


def test_a_world_that_lacks_files_is_refused_before_an_earlier_demo_goes(
    shown: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world_folder(), tmp_path / "world")
    (tmp_path / "world" / "audit.jsonl").unlink()
    shutil.copytree(shown[0] / "a", tmp_path / "demo")
    said = refused(capsys, "-o", str(tmp_path / "demo"), "--lab", str(tmp_path / "world"))
    assert f"{tmp_path / 'world'} lacks audit.jsonl" in said
    assert "build it again with sarm lab build" in said
    assert (tmp_path / "demo" / "demo.json").is_file()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped_while_it_trains(folder: Path, how: signal.Signals) -> None:
    """A demo in a process of its own, sent a signal when its first run is there."""
    program = [sys.executable, "-m", "sarm_control", "demo", "--steps", "500", "-o", str(folder)]
    started = time.time()
    demo = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while max((path.stat().st_ctime for path in folder.glob("none/config.yaml")), default=0.0) < started:
        assert demo.poll() is None
        time.sleep(0.05)
    demo.send_signal(how)
    assert demo.wait(60) != 0


def test_an_earlier_demo_is_there_again_when_the_next_is_interrupted(
    shown: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(shown[0] / "a", folder)
    before = contents(folder)
    stopped_while_it_trains(folder, signal.SIGINT)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_an_earlier_demo_waits_where_the_next_was_killed_and_goes_when_one_is_whole(
    shown: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(shown[0] / "a", folder)
    before = contents(folder)
    stopped_while_it_trains(folder, signal.SIGKILL)
    assert contents(replaced(folder)) == before
    stopped_while_it_trains(folder, signal.SIGINT)
    assert contents(folder) == before
    with _replacing(folder):
        (folder / "demo.json").write_text("new")
        assert contents(replaced(folder)) == before
    assert contents(folder) == {"demo.json": b"new"}
    assert not replaced(folder).exists()


@pytest.mark.parametrize("folder", [".", "..", "inside/.."])
def test_the_current_folder_is_never_the_demos(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    said = refused(capsys, "-o", folder)
    assert f"{folder} is the current folder or holds it, and a demo's folder is replaced" in said
    assert "sarm demo -o runs/demo" in said


@pytest.mark.parametrize("gold", [0.1, -0.5])
def test_ci_holds_the_demo_to_its_effect(gold: float, tmp_path: Path) -> None:
    arms = {"none": {"gold_end": -0.5}, "controls": {"gold_end": gold}}
    (tmp_path / "demo.json").write_text(json.dumps({"seconds": 61.5, "arms": arms}))
    script = Path(__file__).resolve().parents[2] / "scripts" / "check_demo.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "demo.json"], capture_output=True, text=True, check=False
    )
    assert done.stdout == f"demo: 61.5 s, gold {gold:+.3f} with controls, -0.500 without\n"
    failed = "" if gold > -0.5 else "demo: the controls did not hold the reward hacking\n"
    assert (done.returncode, done.stderr) == (int(bool(failed)), failed)


# --- the story's words ---


def change(low: float, high: float) -> dict[str, float]:
    return {"mean": (low + high) / 2, "low": low, "high": high}


def report(gold: tuple[float, float], placebo: tuple[float, float]) -> dict[str, Any]:
    """A comparison: gold of the controls above none, and of the placebo above the controls."""
    paid = {"key": "reward/model", "change": change(-1.2, -0.8)}
    return {
        "arms": [{}, {}, {}],
        "differences": [
            {
                "from": "none",
                "to": "controls",
                "measures": [{"key": "gold/reward", "change": change(*gold)}, paid],
            },
            {
                "from": "controls",
                "to": "random",
                "measures": [{"key": "gold/reward", "change": change(*placebo)}],
            },
        ],
    }


@pytest.mark.parametrize(
    ("gold", "placebo", "said"),
    [
        ((0.4, 0.8), (-0.9, -0.3), "Yes. Gold ends +0.60 [+0.40, +0.80] against no control and "
         "+0.60 [+0.30, +0.90] against the same controls on latents of chance."),
        ((0.4, 0.8), (-0.3, 0.1), "It helped, but no more than the placebo. Gold ends +0.60"),
        ((0.4, 0.8), (0.1, 0.3), "It helped, but no more than the placebo. Gold ends +0.60"),
        ((-0.8, -0.4), (-0.3, 0.1), "No, it did harm. Gold ends -0.60"),
        ((-0.1, 0.4), (-0.9, -0.3), "There is no clear effect. Gold ends +0.15"),
    ],
)  # fmt: skip
def test_the_control_worked_only_if_it_beats_no_control_and_the_placebo(
    gold: tuple[float, float], placebo: tuple[float, float], said: str
) -> None:
    worked, cost = story.answers(report(gold, placebo))
    assert worked.startswith(f"Did the control work? {said}")
    assert cost == (
        "What did it cost? The reward model's own score ends -1.00 [-1.20, -0.80] against no control, "
        "the reward of shortcuts that it no longer takes."
    )


def test_the_share_through_the_residual_is_said_with_its_interval() -> None:
    outside = {"delta": 0.1, "low": 0.04, "high": 0.16}
    ledger = {"outside": outside, "model_change": 0.4}
    said = " ".join(story.through_residual({"arms": [{"ledger": ledger}]}).split())
    assert said.startswith(
        "Without control +0.10 [+0.04, +0.16] of reward came through the residual, 25 % of"
    )


def test_without_a_called_latent_no_control_is_claimed() -> None:
    assert story.answers({"arms": [{}], "differences": []}) == [
        "Did the control work? None was tried: discovery called no latent that is worth one. "
        "Only the run without control was made."
    ]
    assert "the policy learns once" in " ".join(story.arms_text({"none": Controls()}).split())


def test_each_column_of_the_last_table_says_what_it_is() -> None:
    ends = {"gold_start": -0.2, "gold_end": 0.1, "reward_model_start": 0.0, "reward_model_end": 0.5}
    lines = story.results({"arms": [{}], "differences": []}, {"none": ends}).splitlines()
    assert [part.strip() for part in re.split(r"  +", lines[0].strip())] == [
        "policy", "reward model", "gold", "reward change", "gold change",
    ]  # fmt: skip
    assert lines[2].split() == ["none", "+0.50", "+0.10", "+0.50", "+0.30"]


def truth(effects: list[float]) -> Truth:
    """The truth about as many latents, known to 0.01."""
    effect = np.array(effects)
    ones = np.ones(len(effect))
    names = ("flattery",) * len(effect)
    return Truth("head", 100, effect, 0.01 * ones, 5 * effect, ones, ones, names, 0.5 * ones)


@pytest.mark.parametrize(
    ("called", "said"),
    [
        ((0, 1), "2 of 2 such latents found; 2 of 2 called lower the gold margin, as 3 of all 5 latents do."),
        ((0, 4), "1 of 2 such latents found; 1 of 2 called lower the gold margin, as 3 of all 5 latents do."),
        ((), "0 of 2 such latents found; none called, while 3 of all 5 latents lower the gold margin."),
    ],
)
def test_right_calls_stand_beside_the_share_of_all_latents(called: tuple[int, ...], said: str) -> None:
    """Where nearly no latent is null, that no call was a false alarm says little."""
    known = truth([-0.5, -0.1, -0.019, 0.3, 0.2])
    assert known.below_zero == {0, 1}
    known = truth([-0.5, -0.1, -0.021, 0.3, 0.2])
    text = story._by_truth(judge(called, known), known)
    assert f"(d_z <= -0.2): {said}" in text


def test_the_verdict_has_the_minus_signs_of_a_terminal() -> None:
    headline = f"no control: gold shows no clear change ({MINUS}0.10 [{MINUS}0.30, +0.10])."
    said = story.closing({"headline": [headline]})
    assert "(-0.10 [-0.30, +0.10])" in said
    assert MINUS not in said
