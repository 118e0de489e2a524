"""Golden and metamorphic tests of `sarm demo`, offline, with one step an arm; messages of bad input."""

import json
from pathlib import Path

import pytest

from sarm_control.cli import main

pytestmark = pytest.mark.usefixtures("no_network")


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


def test_the_numbers_for_machines_are_those_of_the_report(shown):
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
    # The placebo acts on other latents than those called.
    assert not set(report["arms"][2]["controlled"]) & set(found["discovery"]["latents"])


@pytest.mark.minutes
def test_the_same_seed_gives_the_same_numbers(shown):
    folder, _ = shown
    arguments = ["--steps", "1", "-o", str(folder / "b"), "--json", str(folder / "b.json")]
    assert main(["-q", "demo", *arguments]) == 0
    first, again = (json.loads((folder / f"{name}.json").read_text()) for name in "ab")
    for one in (first, again):
        del one["seconds"], one["report"]
    assert again == first


def test_the_story_has_its_steps_in_order_and_answers_both_questions(shown):
    folder, text = shown
    marks = ["1  What does", "2  Which latents", "3  Train", "4  Did it work"]
    marks += ["Did the control work?", "What did it cost?", str(folder / "a" / "report" / "report.html")]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "nan" not in text
    assert max(map(len, text.splitlines()[:-1])) <= 120


def test_an_earlier_demo_is_replaced_and_anything_else_is_kept(shown, capsys):
    folder, _ = shown
    (folder / "notes").mkdir()
    (folder / "notes" / "keep.txt").write_text("mine")
    assert main(["demo", "--steps", "1", "-o", str(folder / "notes")]) == 2
    assert "holds other files than a demo's" in capsys.readouterr().err
    assert (folder / "notes" / "keep.txt").read_text() == "mine"


def test_a_folder_that_is_no_world_is_refused(tmp_path, capsys):
    assert main(["demo", "--lab", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "holds no world" in capsys.readouterr().err
