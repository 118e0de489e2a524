"""Run folders: golden (row bytes), metamorphic (cut back and go on), bad input."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sarm_control.errors import ConfigError, OutputError, TrainingError
from sarm_control.training.config.roles import Role
from sarm_control.training.config.run_config import RunConfig
from sarm_control.training.config.validation import load_config
from sarm_control.training.config.yaml_source import parse_setting
from sarm_control.training.run.checkpoint import newest_checkpoint
from sarm_control.training.run.jsonl import append_rows, cut_back, format_row, uninterrupted
from sarm_control.training.run.run_folder import (
    Start,
    check_run,
    config_differences,
    finished_step,
    read_run_config,
    record_role,
    role_of_run,
    start_run,
)


@pytest.fixture
def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "policy": {"model": "policy"},
            "reward": {"model": "sarm", "edits": ["7:max=2"], "penalties": ["5:tau=q0.9,alpha=0.5sd"]},
            "data": {"prompts": "prompts.jsonl"},
            "training": {"steps": 6, "learning_rate": 1e-4},
            "checkpoints": {"every": 2, "keep": 2},
        }
    )


def work(start: Start, until: int) -> None:
    """Stands for the trainer: rows that depend on the step only, a checkpoint every second step."""
    for step in range(start.step + 1, until + 1):
        start.folder.record(
            step, {"reward/total": step / 3}, timing={"decode": 0.1}, samples=[{"answer": f"a{step}"}]
        )
        if step % 2 == 0:
            start.folder.save(step, {"policy": {"weight": np.full(3, step, dtype=np.float32)}}, {})


def rows(path: Path, name: str = "metrics") -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / f"{name}.jsonl").read_text().splitlines()]


def test_a_new_run_holds_its_settings_and_where_they_came_from(tmp_path: Path, config: RunConfig) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    start = start_run(tmp_path / "runs/a", config, inputs=[prompts])
    assert (start.checkpoint, start.step, start.notes) == (None, 0, ())
    assert read_run_config(tmp_path / "runs/a") == config
    manifest = json.loads((tmp_path / "runs/a/manifest.json").read_text())
    assert manifest["inputs"].keys() == {"prompts.jsonl"}
    assert manifest["seed"] == 0


def read_manifest(run: Path) -> dict[str, Any]:
    written: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return written


WITHOUT = ("reward.edits=[]", "reward.penalties=[]")


@pytest.mark.parametrize(
    ("settings", "given", "role"),
    [
        ((), None, "controlled"),
        (WITHOUT, None, "no control"),
        ((*WITHOUT, 'reward.patterns={"never": 1sd}'), None, "controlled"),
        ((*WITHOUT, "reward.human_kl={beta: 0.1sd}", "data.human=human.jsonl"), None, "controlled"),
        ((), "placebo", "placebo"),
        (WITHOUT, "no control", "no control"),
    ],
)
def test_the_manifest_says_what_the_run_is(
    tmp_path: Path, config: RunConfig, settings: tuple[str, ...], given: Role | None, role: str
) -> None:
    start_run(tmp_path / "a", config)
    start_run(tmp_path / "b", changed(tmp_path / "a", *settings), role=given)
    manifest = read_manifest(tmp_path / "b")
    assert manifest["role"] == role
    assert role_of_run(manifest, tmp_path / "b", read_run_config(tmp_path / "b")) == role


def test_a_manifest_of_an_earlier_version_leaves_the_role_to_name_and_controls(
    tmp_path: Path, config: RunConfig
) -> None:
    for name, settings, role in (
        ("random", (), "placebo"),
        ("placebo", (), "placebo"),
        ("ours", (), "controlled"),
        ("random-too", WITHOUT, "no control"),
    ):
        start_run(tmp_path / name, config)
        known = read_manifest(tmp_path / name)
        now = changed(tmp_path / name, *settings)
        del known["role"]
        assert role_of_run(known, tmp_path / name, now) == role
    assert role_of_run({"role": "controlled"}, tmp_path / "random", config) == "controlled"


@pytest.mark.parametrize(("word", "shown"), [("random", "'random'"), (["placebo"], "a list of 1")])
def test_a_role_that_there_is_not_names_those_that_there_are(
    tmp_path: Path, config: RunConfig, word: object, shown: str
) -> None:
    with pytest.raises(TrainingError) as damaged:
        role_of_run({"role": word}, tmp_path / "a", config)
    allowed = "'no control', 'controlled', 'placebo'"
    assert str(damaged.value) == f"{tmp_path}/a/manifest.json: role is {shown}; it may be {allowed}"


@pytest.mark.parametrize(
    ("settings", "role", "message"),
    [
        ((), "no control", "to be no control, but the run has controls"),
        (WITHOUT, "placebo", "to be placebo, but the run has no edits, penalties, patterns or human-KL term"),
        (WITHOUT, "controlled", "to be controlled, but the run has no edits"),
    ],
)
def test_a_role_that_the_controls_belie_is_refused(
    tmp_path: Path, config: RunConfig, settings: tuple[str, ...], role: Role, message: str
) -> None:
    start_run(tmp_path / "a", config)
    now = changed(tmp_path / "a", *settings)
    with pytest.raises(ConfigError, match=message):
        start_run(tmp_path / "b", now, role=role)
    assert not (tmp_path / "b").exists()
    start_run(tmp_path / "c", now)
    with pytest.raises(ConfigError, match=message):
        start_run(tmp_path / "c", now, resume=True, role=role)


def test_a_resumed_run_may_be_given_another_role(tmp_path: Path, config: RunConfig) -> None:
    run = tmp_path / "random"
    start = start_run(run, config)
    assert start.notes == (f"{run} counts as controlled; where it is a placebo, say so: --role placebo",)
    work(start, until=2)
    known = read_manifest(run)
    del known["role"]  # as an earlier version wrote it
    (run / "manifest.json").write_text(json.dumps(known))
    start_run(run, config, resume=True)
    assert "role" not in read_manifest(run)
    assert start_run(run, config, resume=True, role="placebo").step == 2
    assert read_manifest(run) == {**known, "role": "placebo"}
    start_run(run, config, resume=True)
    assert read_manifest(run)["role"] == "placebo"
    assert not record_role(run, "placebo")
    assert record_role(run, "controlled")
    assert read_manifest(run) == {**known, "role": "controlled"}


def test_a_name_in_use_is_refused_naming_both_flags(tmp_path: Path, config: RunConfig) -> None:
    start_run(tmp_path / "a", config)
    with pytest.raises(OutputError, match="a exists already") as caught:
        start_run(tmp_path / "a", config)
    assert "--resume" in str(caught.value.hint)
    assert "--overwrite" in str(caught.value.hint)


def test_both_flags_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume and --overwrite exclude each other"):
        check_run(tmp_path / "a", resume=True, overwrite=True)


def test_overwrite_starts_afresh(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=4)
    start = start_run(tmp_path / "a", config, overwrite=True)
    assert start.step == 0
    assert not (tmp_path / "a/metrics.jsonl").exists()


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_that_is_no_run_is_never_touched(
    tmp_path: Path, config: RunConfig, flags: dict[str, Any]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="a exists and is not a run folder"):
        start_run(tmp_path / "a", config, **flags)
    assert (tmp_path / "a/thesis.tex").read_text() == "years of work"


def test_an_empty_folder_is_used(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "a").mkdir()
    assert start_run(tmp_path / "a", config).step == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_named(tmp_path: Path, config: RunConfig) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match=r"cannot write .*a: Permission denied"):
            start_run(tmp_path / "a", config)
    finally:
        tmp_path.chmod(0o755)


def test_a_file_where_the_folder_should_be_made_is_named(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/a: (Not a directory|File exists)"):
        start_run(tmp_path / "file" / "a", config)


@pytest.mark.long
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 5, 6])
def test_a_resumed_run_writes_the_bytes_of_an_uninterrupted_one(
    tmp_path: Path, config: RunConfig, stop: int
) -> None:
    work(start_run(tmp_path / "whole", config), until=6)
    work(start_run(tmp_path / "cut", config), until=stop)
    start = start_run(tmp_path / "cut", config, resume=True)
    assert start.step == stop // 2 * 2
    work(start, until=6)
    for name in ("metrics", "timing", "samples"):
        assert (tmp_path / "cut" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "whole" / f"{name}.jsonl"
        ).read_bytes()
    assert newest_checkpoint(tmp_path / "cut").step == 6


def test_a_torn_last_line_is_cut(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=2)
    path = tmp_path / "a/metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 3, "reward/to')
    start_run(tmp_path / "a", config, resume=True)
    assert path.read_bytes() == whole


def test_cut_back_keeps_bytes_and_counts_lines(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_bytes('{"step":1, "a": "\u2028é"}\n{"step": 1}\n{"step": 2}\n'.encode())
    assert cut_back(path, 1) == 1
    assert path.read_bytes() == '{"step":1, "a": "\u2028é"}\n{"step": 1}\n'.encode()
    assert cut_back(path, 5) == 0
    assert cut_back(tmp_path / "absent.jsonl", 5) == 0


def test_a_damaged_checkpoint_is_passed_over_set_aside_and_reported(
    tmp_path: Path, config: RunConfig
) -> None:
    work(start_run(tmp_path / "a", config), until=5)
    (tmp_path / "a/checkpoints/step-000004/policy.safetensors").write_bytes(b"")
    start = start_run(tmp_path / "a", config, resume=True)
    assert start.step == 2
    assert len(rows(tmp_path / "a")) == 2
    assert any("step-000004 is damaged: policy.safetensors has 0 bytes" in note for note in start.notes)
    assert (tmp_path / "a/checkpoints/damaged-step-000004").is_dir()


def test_resume_before_the_first_checkpoint_starts_over_and_says_so(
    tmp_path: Path, config: RunConfig
) -> None:
    work(start_run(tmp_path / "a", config), until=1)
    start = start_run(tmp_path / "a", config, resume=True)
    assert start.step == 0
    assert rows(tmp_path / "a") == []
    kept = tmp_path / "a/before-restart-1"
    assert start.notes == (
        f"what was measured before is kept in {kept}",
        "no checkpoint to resume from: starting from the beginning",
    )
    assert [row["step"] for row in rows(kept)] == [1]


def test_when_no_checkpoint_is_good_the_run_starts_over_and_says_so(
    tmp_path: Path, config: RunConfig
) -> None:
    work(start_run(tmp_path / "a", config), until=5)
    measured = rows(tmp_path / "a")
    for name in ("step-000002", "step-000004"):
        (tmp_path / "a/checkpoints" / name / "state.json").unlink()
    start = start_run(tmp_path / "a", config, resume=True)
    assert (start.step, rows(tmp_path / "a")) == (0, [])
    assert rows(tmp_path / "a/before-restart-1") == measured
    assert not start.folder.discard_if_unused()
    assert (tmp_path / "a/checkpoints/damaged-step-000004").is_dir()
    assert start.notes[-1] == "none of 2 checkpoints is good: starting from the beginning"
    assert not (tmp_path / "a/checkpoints/latest").exists()


def test_the_pointer_follows_the_newest_good_checkpoint(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=5)
    pointer = tmp_path / "a/checkpoints/latest"
    assert pointer.read_text() == "step-000004\n"
    pointer.write_text("step-000002\n")
    start_run(tmp_path / "a", config, resume=True)
    assert pointer.read_text() == "step-000004\n"
    (tmp_path / "a/checkpoints/step-000004/state.json").write_bytes(b"")
    start_run(tmp_path / "a", config, resume=True)
    assert pointer.read_text() == "step-000002\n"


def test_what_a_killed_write_left_is_swept(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=2)
    (tmp_path / "a/.metrics.jsonl.x1y2").write_text("half")
    (tmp_path / "a/.policy.x1y2").mkdir()
    (tmp_path / "a/checkpoints/.latest.x1y2").write_text("")
    start_run(tmp_path / "a", config, resume=True)
    assert list((tmp_path / "a").rglob(".*")) == []


def test_a_full_disk_is_told_with_the_file() -> None:
    with pytest.raises(OutputError, match="cannot write /dev/full: No space left on device") as caught:
        append_rows(Path("/dev/full"), [{"step": 1}])
    assert caught.value.hint == "make room"


def test_a_model_put_in_the_place_of_another_is_refused(tmp_path: Path, config: RunConfig) -> None:
    folder = start_run(tmp_path / "a", config).folder
    folder.same_models({"policy.model": "p", "reward.model": "r"})
    folder.same_models({"policy.model": "p", "reward.model": "r"})
    message = r"reward.model is not the model .*a was started with \(its weights differ\)"
    with pytest.raises(TrainingError, match=message) as caught:
        folder.same_models({"policy.model": "p", "reward.model": "s"})
    assert caught.value.hint == "put the model back, or start another run with --out"


def test_a_run_goes_on_in_the_type_it_began_in(tmp_path: Path, config: RunConfig) -> None:
    folder = start_run(tmp_path / "a", config).folder
    assert folder.settled(config).policy.dtype == "auto"
    folder.same_models({"policy.model": "p", "policy.dtype": "bfloat16", "reward.model": "r"})
    assert folder.settled(config).policy.dtype == "bfloat16"
    assert folder.settled(config).policy.model == config.policy.model


def test_resume_of_a_name_not_in_use_starts_a_run_and_says_so(tmp_path: Path, config: RunConfig) -> None:
    start = start_run(tmp_path / "a", config, resume=True)
    assert start.notes == ("no run of that name yet: starting from the beginning",)


def changed(run: Path, *texts: str) -> RunConfig:
    """The settings of a run with `--set` of each text."""
    return load_config(run / "config.yaml", [parse_setting(text) for text in texts])


def test_resume_with_other_settings_shows_each_difference(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=2)
    settings = [
        "training.learning_rate=2e-4",
        "policy.lora=null",
        "reward.edits=[7:max=3]",
        "training.steps=9",
    ]
    with pytest.raises(ConfigError) as caught:
        start_run(tmp_path / "a", changed(tmp_path / "a", *settings), resume=True)
    message = str(caught.value)
    assert "training.learning_rate: 0.0001 -> 0.0002" in message
    assert "policy.lora.rank: 16 -> (not set)" in message
    assert 'reward.edits: [{"latent": 7, "max": 2.0}] -> [{"latent": 7, "max": 3.0}]' in message
    assert "training.steps:" not in message
    assert read_run_config(tmp_path / "a") == config


def test_steps_may_grow_but_not_shrink(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=6)
    longer = changed(tmp_path / "a", "training.steps=8")
    assert start_run(tmp_path / "a", longer, resume=True).step == 6
    assert read_run_config(tmp_path / "a").training.steps == 8
    with pytest.raises(ConfigError, match=r"training\.steps: 8 -> 6"):
        start_run(tmp_path / "a", config, resume=True)


def test_equal_settings_have_no_difference(config: RunConfig) -> None:
    assert config_differences(config, RunConfig.model_validate(config.to_dict())) == []


def test_an_input_that_changed_is_refused(tmp_path: Path, config: RunConfig) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    start_run(tmp_path / "a", config, inputs=[prompts])
    start_run(tmp_path / "a", config, resume=True, inputs=[prompts])
    prompts.write_text('{"prompt": "b"}\n')
    with pytest.raises(TrainingError, match=r"prompts.jsonl changed since .*a was started"):
        start_run(tmp_path / "a", config, resume=True, inputs=[prompts])


def test_metrics_that_went_missing_are_not_papered_over(tmp_path: Path, config: RunConfig) -> None:
    work(start_run(tmp_path / "a", config), until=4)
    path = tmp_path / "a/metrics.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n", 1)[1])
    with pytest.raises(TrainingError, match="has no row for step 1, but the checkpoint is of step 4"):
        start_run(tmp_path / "a", config, resume=True)


def test_a_finished_run_says_so(tmp_path: Path, config: RunConfig) -> None:
    start = start_run(tmp_path / "a", config)
    assert finished_step(tmp_path / "a") is None
    assert finished_step(tmp_path / "nowhere") is None
    start.folder.finish({"step": 6})
    assert finished_step(tmp_path / "a") == 6


def test_rows_are_stable_to_the_byte() -> None:
    row = {
        "step": 3,
        "a": np.float32(0.1),
        "b": 0.1 + 0.2,
        "c": np.int64(4),
        "d": float("nan"),
        "e": [1e-7, True, None],
        "f": {"5": np.float64(1 / 3)},
        "g": "é",
    }
    expected = (
        '{"step": 3, "a": 0.100000001, "b": 0.3, "c": 4, "d": null, '
        '"e": [1e-07, true, null], "f": {"5": 0.333333333}, "g": "é"}'
    )
    assert format_row(row) == expected


def test_an_interrupt_waits_until_the_rows_are_written() -> None:
    seen = []

    def write() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            seen.append("written")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert seen == ["written"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_restart_is_no_longer_finished_and_a_second_one_keeps_the_first_ones_rows(
    tmp_path: Path, config: RunConfig
) -> None:
    start = start_run(tmp_path / "a", config)
    work(start, until=6)
    start.folder.finish({"step": 6})
    for again in (1, 2):
        for path in (tmp_path / "a/checkpoints").glob("step-*"):
            (path / "state.json").unlink()
        start = start_run(tmp_path / "a", config, resume=True)
        assert finished_step(tmp_path / "a") is None
        work(start, until=2 * again)
    assert len(rows(tmp_path / "a/before-restart-1")) == 6
    assert len(rows(tmp_path / "a/before-restart-2")) == 2


def test_a_run_to_be_overwritten_is_there_until_the_new_one_has_a_checkpoint(
    tmp_path: Path, config: RunConfig
) -> None:
    work(start_run(tmp_path / "a", config), until=4)
    for _ in range(2):
        assert start_run(tmp_path / "a", config, overwrite=True).folder.discard_if_unused()
        assert len(rows(tmp_path / "a")) == 4
    start_run(tmp_path / "a", config, overwrite=True)  # and killed
    start = start_run(tmp_path / "a", config, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] != ["a"]
    work(start, until=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert len(rows(tmp_path / "a")) == 2


def test_a_folder_of_an_earlier_run_is_never_discarded(tmp_path: Path, config: RunConfig) -> None:
    start_run(tmp_path / "a", config)
    assert not start_run(tmp_path / "a", config, resume=True).folder.discard_if_unused()
    assert read_run_config(tmp_path / "a") == config


def test_a_run_without_a_checkpoint_can_be_discarded(tmp_path: Path, config: RunConfig) -> None:
    start = start_run(tmp_path / "a", config)
    assert start.folder.discard_if_unused()
    start = start_run(tmp_path / "a", config)
    work(start, until=2)
    assert not start.folder.discard_if_unused()
    assert newest_checkpoint(tmp_path / "a").step == 2
