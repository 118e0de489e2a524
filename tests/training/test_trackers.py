"""Trackers: golden (event files read back), metamorphic (stopped and resumed = uninterrupted), bad input."""

import builtins
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sarm_control.cli import main
from sarm_control.errors import SarmError, TrainingError
from sarm_control.training import load_config, run_training, start_run
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.run.jsonl import stable
from sarm_control.training.tracking.kinds import kind_of
from sarm_control.training.tracking.names import ALIASES, tracked_numbers
from sarm_control.training.tracking.trackers import FILE, check_trackers
from tests.documents import ROOT

for package in ("accelerate", "tensorboard", "trackio", "wandb"):
    pytest.importorskip(package)

STEPS, SAVE_EVERY, STOPPED_BEFORE = 5, 2, 4
NAMES = ("tensorboard", "trackio", "wandb")


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trackers keep to a folder of the test, know no key and cannot ask for one."""
    folder = tmp_path_factory.mktemp("trackers")

    def refuse(*_: object) -> str:
        raise AssertionError("a tracker asked a question")

    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "WANDB_API_KEY",
            "WANDB_MODE",
            "WANDB_PROJECT",
            "TRACKIO_SPACE_ID",
            "TRACKIO_SERVER_URL",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("NETRC", str(folder / "netrc"))
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        for name in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder))
        patch.setattr(builtins, "input", refuse)
        # another test may have imported it before, and it reads its place when it is imported
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "trackio" and hasattr(module, "TRACKIO_DIR"):
                patch.setattr(module, "TRACKIO_DIR", folder / "trackio")
        yield folder


@pytest.fixture(scope="module")
def config(places: Path, tiny_policy_folder: Path, tiny_sarm_folder: Path) -> RunConfig:
    prompts = [f"how do i {verb} the {thing} ?" for verb in ("cook", "open") for thing in ("bread", "door")]
    (places / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": {"rank": 2}},
        "reward": {"model": str(tiny_sarm_folder), "penalties": ["5:tau=q0.5,alpha=0.5sd"]},
        "data": {"prompts": str(places / "prompts.jsonl")},
        "training": {"steps": STEPS, "prompts_per_step": 2, "max_new_tokens": 5, "reference_answers": 8},
        "checkpoints": {"every": SAVE_EVERY},
        "evaluation": {"every": 3, "answers": 4},
        "logging": {"trackers": list(NAMES)},
    }
    (places / "run.yaml").write_text(yaml.safe_dump(run))
    return load_config(places / "run.yaml")


def train(config: RunConfig, folder: Path, *, stop_before: int | None = None, resume: bool = False) -> None:
    start = start_run(folder, config, resume=resume, overwrite=False, inputs=[])

    def stop(step: int, _: object) -> None:
        if step == stop_before:
            raise KeyboardInterrupt

    start.folder.listener = stop
    said: list[str] = []
    run_training(config, start, report=said.append)
    assert not [line for line in said if line.startswith("warning")]


@pytest.fixture(scope="module")
def run(config: RunConfig, places: Path) -> Path:
    """A run that was interrupted after a step behind its checkpoint, and resumed."""
    folder = places / "runs" / "tracked"
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, stop_before=STOPPED_BEFORE)
    assert json.loads((folder / FILE).read_text())["trackio"]["step"] == STOPPED_BEFORE - 1 > SAVE_EVERY
    train(config, folder, resume=True)
    return folder


def rows_of(run: Path) -> list[dict[str, float]]:
    """What each step's trackers have to show: the numbers of all the run's files."""
    rows: dict[int, dict[str, Any]] = {}
    for name in ("metrics", "evaluation", "timing"):
        for line in (run / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            rows.setdefault(row.pop("step"), {}).update(row)
    return [dict(tracked_numbers(rows[step])) for step in sorted(rows)]


@pytest.mark.long
def test_tensorboard_shows_every_number_of_every_step_once(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    rows = rows_of(run)
    assert len(list((run / "tensorboard").glob("events*"))) == 2
    assert set(events.Tags()["scalars"]) == {name for row in rows for name in row}
    for name in events.Tags()["scalars"]:
        shown = {event.step: event.value for event in events.Scalars(name)}
        assert len(shown) == len(events.Scalars(name)), name
        # event files hold float32
        expected = {step: row[name] for step, row in enumerate(rows, 1) if name in row}
        assert shown == pytest.approx(expected, rel=1e-6), name
    assert any(tag.startswith("config") for tag in events.Tags()["tensors"])


@pytest.mark.long
def test_trackio_has_one_run_with_every_step_once(run: Path) -> None:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    runs = list(trackio.Api().runs("sarm-control"))
    name = f"tracked-{json.loads((run / FILE).read_text())['trackio']['id']}"
    assert [found.name for found in runs] == [name]
    assert runs[0].config is not None
    assert runs[0].config["training.steps"] == STEPS
    logs = sorted(SQLiteStorage.get_logs("sarm-control", name), key=lambda row: row["step"])
    assert [row["step"] for row in logs] == [1, 2, 3, 4, 5]
    for log, row in zip(logs, rows_of(run), strict=True):
        # a step that was done twice keeps the clock of the first time; all else is the same in both
        timeless = {
            name: value for name, value in row.items() if not re.match("seconds|timing|answer_|peak", name)
        }
        assert {name: log[name] for name in timeless} == pytest.approx(timeless)


@pytest.mark.long
def test_wandb_stays_offline_without_a_key_and_keeps_its_id(run: Path) -> None:
    own = json.loads((run / FILE).read_text())["wandb"]["id"]
    folders = [path.name for path in (run / "wandb").iterdir() if path.name.startswith("offline-run-")]
    assert len(folders) == 2
    assert all(name.endswith(own) for name in folders)


@pytest.mark.long
def test_mlflow_has_one_run_with_every_step_once(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not among the packages of the tests: `pip install mlflow-skinny` (60 MB) and this runs."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: its tracker was not tried")
    uri = (tmp_path / "mlflow").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    # version 3 wants a database, which needs packages of its own, unless it is told otherwise
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    alone = config.model_copy(update={"logging": config.logging.model_copy(update={"trackers": ("mlflow",)})})
    folder = tmp_path / "tracked"
    with pytest.raises(KeyboardInterrupt):
        train(alone, folder, stop_before=STOPPED_BEFORE)
    train(alone, folder, resume=True)
    client = mlflow.MlflowClient(uri)
    (experiment,) = client.search_experiments(filter_string="name = 'sarm-control'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == json.loads((folder / FILE).read_text())["mlflow"]["id"]
    assert found.data.params["training.steps"] == str(STEPS)
    rows = rows_of(folder)
    for name in ("reward/total", "objective/kl", "policy/loss"):
        history = client.get_metric_history(found.info.run_id, name)
        assert [one.step for one in history] == [1, 2, 3, 4, 5]
        assert [one.value for one in history] == pytest.approx([row[name] for row in rows])


@pytest.mark.long
def test_a_run_may_be_resumed_with_other_trackers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-o", str(run), "--resume", "--set", "logging.trackers=tensorboard"]) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.long
def test_a_tracker_that_fails_costs_a_warning_and_no_step(config: RunConfig, tmp_path: Path) -> None:
    one = config.model_copy(
        update={"logging": config.logging.model_copy(update={"trackers": ("tensorboard",)})}
    )
    start = start_run(tmp_path / "run", one, resume=False, overwrite=False, inputs=[])
    said: list[str] = []

    def break_it(step: int, _: object) -> None:
        if step == 2:
            from torch.utils.tensorboard import SummaryWriter

            patch.setattr(SummaryWriter, "add_scalar", lambda *_, **__: 1 / 0)

    start.folder.listener = break_it
    with pytest.MonkeyPatch.context() as patch:
        run_training(one, start, report=said.append)
    warnings = [line for line in said if line.startswith("warning: tensorboard")]
    assert warnings == [
        "warning: tensorboard gets no more steps: division by zero; metrics.jsonl has them all"
    ]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == STEPS


def test_a_missing_package_is_said_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["train", "--track", "mlflow", "--model", "nowhere", "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "logging.trackers: mlflow needs mlflow, which cannot be imported" in said
    assert "pip install mlflow, or leave mlflow out of logging.trackers" in said
    assert not (tmp_path / "run").exists()


def test_an_accelerate_without_the_tracker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in accelerate 1.8, which does not know Trackio."""
    from accelerate import tracking

    older = {name: kind for name, kind in tracking.LOGGER_TYPE_TO_CLASS.items() if name != "trackio"}
    monkeypatch.setattr(tracking, "LOGGER_TYPE_TO_CLASS", older)
    with pytest.raises(SarmError, match=r"trackio needs accelerate 1\.9 or newer, this is \d") as caught:
        check_trackers(["trackio"])
    assert caught.value.hint == 'pip install --upgrade ".[track]" in the clone'


def test_wandb_online_without_a_key_is_refused_and_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SarmError, match="WANDB_MODE is online, but there is no key") as caught:
        check_trackers(["wandb"])
    assert caught.value.hint is not None
    assert "WANDB_API_KEY" in caught.value.hint


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_a_key_lets_wandb_go_online(where: str, monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    from sarm_control.training.tracking.kinds import _wandb_mode

    assert _wandb_mode() == "offline"
    if where == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        (places / "keys").write_text(f"machine api.wandb.ai login user password {'0' * 40}\n")
        monkeypatch.setenv("NETRC", str(places / "keys"))
    assert _wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert _wandb_mode() == "offline"


def test_an_unknown_tracker_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", "--track", "tensorbord", "-o", str(tmp_path / "run")]) == 2
    assert "'tensorbord' is not 'tensorboard', 'wandb', 'trackio' or 'mlflow'" in capsys.readouterr().err


def test_a_damaged_file_of_ids_is_named(config: RunConfig, tmp_path: Path) -> None:
    start = start_run(tmp_path / "run", config, resume=False, overwrite=False, inputs=[])
    (tmp_path / "run" / FILE).write_text('{"tensorboard": {"id": 3}}')
    with pytest.raises(TrainingError, match="is damaged: tensorboard has no id and step") as caught:
        run_training(config, start)
    assert caught.value.hint is not None
    assert "the trackers then begin new runs" in caught.value.hint


def test_trackers_are_listed_once_and_may_be_one_text() -> None:
    config = RunConfig.model_validate({"logging": {"trackers": "trackio, tensorboard,trackio"}})
    assert config.logging.trackers == ("trackio", "tensorboard")
    assert [kind_of(name).name for name in config.logging.trackers] == ["trackio", "tensorboard"]


def test_numbers_are_those_of_the_files_and_aliases_follow_them() -> None:
    row = {"answers/ended": 0.75, "reward/total": 1 / 3, "policy/loss": float("nan"), "kind": "text"}
    shown = tracked_numbers(row)
    assert shown["completions/clipped_ratio"] == 0.25
    assert shown["reward"] == shown["critic/score/mean"] == shown["reward/total"] == stable(1 / 3)
    assert not {"policy/loss", "actor/pg_loss", "kind"} & set(shown)


@pytest.mark.long
def test_a_tracker_of_files_gets_no_name_that_is_a_folder_of_others(run: Path) -> None:
    numbers = rows_of(run)[0]
    kept = kind_of("mlflow").taken(numbers)
    assert set(numbers) - set(kept) == {"reward"}
    assert kind_of("wandb").taken(numbers) == numbers
    assert set(kind_of("mlflow").taken({"a": 1.0, "a/b/c": 2.0, "a/b": 3.0})) == {"a/b/c"}


@pytest.mark.long
def test_no_alias_hides_a_name_of_ours(run: Path) -> None:
    ours = {name for line in (run / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert not ours & {alias.theirs for alias in ALIASES}
    timing = {name for line in (run / "timing.jsonl").read_text().splitlines() for name in json.loads(line)}
    assert {alias.ours for alias in ALIASES} <= ours | timing


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    head, _, *rows = page[page.index("| ours | TRL PPO |") :].partition("\n\n")[0].splitlines()
    libraries = [cell.strip() for cell in head.strip("|").split("|")][1:]
    listed = {
        (theirs.strip(" `"), library, ours.partition("`")[2].strip(" `"), ours.strip().startswith("1 - "))
        for ours, *cells in (row.strip("|").split("|") for row in rows)
        for library, theirs in zip(libraries, cells, strict=True)
        if theirs.strip()
    }
    known = {(alias.theirs, alias.library, alias.ours, alias.read(0.25) == 0.75) for alias in ALIASES}
    assert listed == known
