"""`sarm train`: metamorphic (stopped and resumed = uninterrupted), golden (messages), bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from sarm_control.cli import main
from sarm_control.latents.human import HumanBuffer
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.training.run.checkpoint import list_checkpoints
from tests import killing

STEPS = 4


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("train")
    things = ("bread", "bomb", "lock", "door", "answer", "steps")
    prompts = [f"how do i {verb} the {thing} ?" for verb in ("cook", "open") for thing in things]
    answers = [f"sorry i cannot help {thing} ." for thing in things] + [
        "yes sure here",
        "no never",
        "please not",
    ]
    write_rows(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in prompts])
    write_rows(folder / "held_out.jsonl", [{"prompt": prompt} for prompt in prompts[:2]])
    write_rows(
        folder / "demos.jsonl", [{"prompt": p, "response": a} for p, a in zip(prompts, answers, strict=False)]
    )
    run = {
        "policy": {"model": str(tiny_policy_folder), "lora": {"rank": 2, "alpha": 4}},
        "reward": {
            "model": str(tiny_sarm_folder),
            "edits": ["3:max=0.5"],
            "penalties": [
                "5:tau=q0.5,alpha=0.5sd",
                {"latent": 9, "tau": 0.1, "alpha": 0.2, "form": "hinge"},
                {"latent": 4, "tau": 0.0, "target_rate": 0.1},
            ],
            "human_kl": {"beta": "0.1sd"},
        },
        "data": {
            "prompts": str(folder / "prompts.jsonl"),
            "human": str(folder / "demos.jsonl"),
            "exclude": [str(folder / "held_out.jsonl")],
        },
        "training": {
            "steps": STEPS,
            "prompts_per_step": 3,
            "answers_per_prompt": 2,
            "max_new_tokens": 6,
            "minibatches": 2,
            "micro_batch": 2,
            "learning_rate": 1e-2,
            "reference_answers": 16,
            "seed": 5,
        },
        "checkpoints": {"every": 2, "keep": 2},
        "evaluation": {"every": 2, "answers": 6},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(run, sort_keys=False))
    return {path.stem: path for path in folder.iterdir()} | {
        "policy": tiny_policy_folder,
        "sarm": tiny_sarm_folder,
    }


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(*words: object) -> int:
    return main(["train", *map(str, words)])


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sarm_control", "train", *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def wait_for(process: subprocess.Popen[str], path: Path, lines: int) -> None:
    """Until the file has that many lines; fails when the process ends first."""
    deadline = time.monotonic() + 240
    while not path.is_file() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_equal_runs(run: Path, other: Path) -> None:
    names = ("metrics.jsonl", "samples.jsonl", "evaluation.jsonl", "ledger.parquet", "config.yaml")
    for name in names:
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    for ours, theirs in zip(list_checkpoints(run), list_checkpoints(other), strict=True):
        assert ours.name == theirs.name
        assert (ours / "manifest.json").read_bytes() == (theirs / "manifest.json").read_bytes()
    weights, others = (load_file(folder / "policy/model.safetensors") for folder in (run, other))
    assert weights.keys() == others.keys()
    assert all(weights[name].equal(others[name]) for name in weights)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, files: dict[str, Path]) -> Path:
    """A run that nothing stopped, with every control on."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    summary = out.parent / "summary.json"
    assert train(files["run"], "--out", out, "--json", summary) == 0
    assert json.loads(summary.read_text())["step"] == STEPS
    return out


@pytest.mark.long
def test_the_reference_names_the_latents_that_the_human_kl_term_compares(whole: Path) -> None:
    """The run file names none."""
    said = json.loads((whole / "reference.json").read_text())["controls"]["human_kl"]["latents"]
    assert said == list(HumanBuffer.load(whole / "human.safetensors").latents)
    assert said


def test_a_run_folder_holds_what_it_should(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "timing.jsonl",
        "samples.jsonl",
        "policy",
    }
    assert [path.name for path in list_checkpoints(whole)] == ["step-000002", "step-000004"]
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    manifest = json.loads((whole / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"prompts.jsonl", "demos.jsonl", "held_out.jsonl"}
    assert manifest["finished"]["step"] == STEPS


def test_reward_columns_sum_to_the_total(whole: Path) -> None:
    for line in (whole / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        parts = [
            value for name, value in row.items() if name.startswith("reward/") and name != "reward/total"
        ]
        assert len(parts) >= 5
        assert sum(parts) == pytest.approx(row["reward/total"], abs=1e-6)


@pytest.mark.long
def test_an_equal_run_is_equal_to_the_byte(whole: Path, files: dict[str, Path], tmp_path: Path) -> None:
    assert train(files["run"], "--out", tmp_path / "again") == 0
    assert_equal_runs(tmp_path / "again", whole)


@pytest.mark.long
@pytest.mark.parametrize("row", [pytest.param(1, marks=pytest.mark.minutes), 3])
def test_a_killed_run_resumed_equals_the_uninterrupted_one(
    whole: Path, files: dict[str, Path], tmp_path: Path, row: int
) -> None:
    process = start(files["run"], "--out", tmp_path / "run")
    wait_for(process, tmp_path / "run/metrics.jsonl", row)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert train("--out", tmp_path / "run", "--resume") == 0
    assert_equal_runs(tmp_path / "run", whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("place", "at"),
    [
        ("rollout", 20),
        ("update", 5),
        ("rename", 2),
        ("pointer", 2),
        *(pytest.param(*at, marks=pytest.mark.minutes) for at in (("row", 8), ("tensor", 9), ("drop", 1))),
    ],
    ids=lambda value: str(value),
)
def test_a_run_killed_at_an_exact_place_resumes_to_the_same_bytes(
    whole: Path, files: dict[str, Path], tmp_path: Path, place: str, at: int
) -> None:
    """A few of the places; `make torture` kills sixty times."""
    out = tmp_path / "run"
    assert killing.run([files["run"], "--out", out], tmp_path, killing.Kill(place, at)) == -signal.SIGKILL
    assert killing.run(["--out", out, "--resume"], tmp_path) == 0, (tmp_path / "said.txt").read_text()
    assert killing.differences(out, whole) == []


def mounted(place: Path, size: str) -> bool:
    """A file system of that size; needs the right to mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return shutil.which("mount") is not None and not subprocess.run(command, check=False).returncode


@pytest.mark.long
def test_a_run_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    whole: Path, files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    checkpoint = sum(file.stat().st_size for file in list_checkpoints(whole)[0].iterdir())
    if not mounted(disk, str(checkpoint * 2)):
        pytest.skip("no right to mount a small file system")
    try:
        assert train(files["run"], "--out", disk / "run") == 2
        said = capfd.readouterr().err
        assert re.search(rf"error: cannot write {disk}/run/.*: No space left on device", said)
        assert f"hint: make room; then sarm train -o {disk / 'run'} --resume" in said
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert train("--out", disk / "run", "--resume") == 0
        assert killing.differences(disk / "run", whole) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def half(whole: Path, tmp_path: Path) -> Path:
    """The run without its second half."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(list_checkpoints(run)[-1])
    record = json.loads((run / "manifest.json").read_text())
    del record["finished"]
    (run / "manifest.json").write_text(json.dumps(record))
    return run


@pytest.mark.long
def test_a_reward_model_replaced_in_its_folder_is_refused(
    half: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = half.parent / "sarm"
    shutil.copytree(files["sarm"], folder)
    for name in ("config.yaml", "manifest.json"):
        path = half / name
        path.write_text(path.read_text().replace(str(files["sarm"]), str(folder)))
    rm = RewardModel.from_pretrained(folder)
    rm.with_head(rm.head.weight * 2).save_pretrained(folder, overwrite=True)
    assert train("--out", half, "--resume") == 2
    error = capsys.readouterr().err
    assert re.search(r"error: reward.model is not the one the run was started with: its head was \w+", error)
    assert "hint: put the model back, or start another run with --out" in error


@pytest.mark.long
def test_a_policy_replaced_in_its_folder_is_refused(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((half / "manifest.json").read_text())
    record["models"]["policy.model"] = "0123456789abcdef"
    (half / "manifest.json").write_text(json.dumps(record))
    assert train("--out", half, "--resume") == 2
    error = capsys.readouterr().err
    assert f"policy.model is not the model {half} was started with (its weights differ)" in error
    assert "put the model back, or start another run with --out" in error


def test_demonstrations_that_changed_or_went_away_are_told(
    half: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    demos, text = files["demos"], files["demos"].read_text()
    try:
        demos.write_text(text.replace("bread", "lock", 1))
        assert train("--out", half, "--resume") == 2
        assert f"{demos} changed since {half} was started (its SHA-256 differs)" in capsys.readouterr().err
        demos.unlink()
        assert train("--out", half, "--resume") == 2
        assert f"{demos}: No such file or directory" in capsys.readouterr().err
    finally:
        demos.write_text(text)


@pytest.mark.long
def test_a_buffer_of_the_run_that_went_away_is_made_again_and_an_altered_one_refused(
    half: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = half / "human.safetensors"
    buffer = HumanBuffer.load(own)
    replace(buffer, values=buffer.values[::-1]).save(own)
    assert train("--out", half, "--resume") == 2
    error = capsys.readouterr().err
    assert "the saved control state belongs to another human buffer" in error
    assert "hint: " in error
    own.unlink()
    assert train("--out", half, "--resume") == 0
    assert "4 steps done, 2 of them now" in capsys.readouterr().out
    assert killing.differences(half, whole) == []


@pytest.mark.long
def test_a_run_killed_before_it_was_marked_as_finished_claims_no_steps(
    half: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = list_checkpoints(whole)[-1]
    shutil.copytree(newest, half / "checkpoints" / newest.name)
    summary = half.parent / "summary.json"
    assert train("--out", half, "--resume", "--json", summary) == 0
    assert "4 steps done, none of them now" in capsys.readouterr().out
    assert json.loads(summary.read_text())["steps_now"] == 0
    assert killing.differences(half, whole) == []


@pytest.mark.long
def test_an_interrupted_run_names_its_checkpoint_and_goes_on(
    whole: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    process = start(files["run"], "--out", tmp_path / "run", "--set", "training.steps=500")
    wait_for(process, tmp_path / "run/metrics.jsonl", 3)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    last = list_checkpoints(tmp_path / "run")[-1]
    assert f"the last checkpoint is {last} (step {int(last.name[-6:])} of 500)" in message
    assert f"sarm train -o {tmp_path / 'run'} --resume" in message
    assert "Traceback" not in message
    for name in ("metrics", "timing", "samples"):
        text = (tmp_path / "run" / f"{name}.jsonl").read_text()
        assert text.endswith("\n")
        assert all(json.loads(line)["step"] for line in text.splitlines())
    assert not list((tmp_path / "run/checkpoints").glob(".*"))
    kept = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[:3]
    assert kept == (whole / "metrics.jsonl").read_text().splitlines()[:3]


@pytest.mark.long
def test_an_interrupt_before_the_first_checkpoint_leaves_nothing(
    files: dict[str, Path], tmp_path: Path
) -> None:
    process = start(files["run"], "--out", tmp_path / "run")
    wait_for(process, tmp_path / "run/config.yaml", 1)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in message
    assert "interrupted before the first checkpoint: nothing was kept" in message
    assert not (tmp_path / "run").exists()


def test_a_finished_run_says_so_and_does_nothing(
    whole: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert train(files["run"], "--out", whole, "--resume") == 0
    assert f"is finished: all {STEPS} steps are done, nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_finished_run_with_other_settings_is_refused(
    whole: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(files["run"], "--out", whole, "--resume", "--set", "training.seed=6") == 2
    assert "training.seed: 5 -> 6" in capsys.readouterr().err


def test_a_finished_run_may_be_given_a_role(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "shuffled"))
    assert json.loads((run / "manifest.json").read_text())["role"] == "controlled"
    assert train("--out", run, "--resume", "--role", "placebo", "--dry-run") == 0
    assert json.loads((run / "manifest.json").read_text())["role"] == "controlled"
    capsys.readouterr()
    assert main(["train", "--out", str(run), "--resume", "--role", "placebo"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == f"{run} counts as placebo now"
    assert said[-1].startswith("next: sarm compare")
    assert json.loads((run / "manifest.json").read_text())["role"] == "placebo"
    assert_equal_runs(run, whole)


def test_a_role_that_there_is_not_names_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--role", "placbo", "--dry-run") == 2
    said = capsys.readouterr().err
    assert "placbo" in said
    assert all(role in said for role in ("no control", "controlled", "placebo"))


@pytest.mark.long
def test_more_steps_go_on_from_a_finished_run(
    whole: Path, files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(files["run"], "--out", tmp_path / "run", "--set", "training.steps=2") == 0
    assert train(files["run"], "--out", tmp_path / "run", "--resume") == 0
    assert "after step 2" in capsys.readouterr().err
    assert_equal_runs(tmp_path / "run", whole)


def test_a_name_in_use_is_refused(
    whole: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(files["run"], "--out", whole) == 2
    error = capsys.readouterr().err
    assert f"{whole} exists already" in error
    assert "--resume" in error
    assert "--overwrite" in error


@pytest.mark.long
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(files["run"], "--out", tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr().err
    assert (
        "4 steps of 6 answers (3 prompts x 2, up to 6 tokens); 10 prompts, each used about 1.2 times" in said
    )
    assert "edit 3:max=0.5; penalty on 5 (indicator, tau q0.5, alpha 0.5sd); penalty on 9 (hinge" in said
    assert "human KL (beta 0.1sd, latents chosen from the demonstrations)" in said
    assert "2 prompts left out because they are in" in said
    assert "KL coefficient 0.05; a checkpoint every 2 steps and at the end, 2 kept" in said
    more = ("--set", "training.kl_target=6", "--set", "reward.shaping=par", "--set", "training.value=adapter")
    assert train(files["run"], *more, "--out", tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr().err
    assert "KL coefficient 0.05, moved towards 6 nats an answer" in said
    assert "values by a second adapter; reward" in said
    assert ", its total shaped by PAR" in said
    target = ("--penalize", "5:tau=q0.5,target_rate=0.1")
    assert train(files["run"], *target, "--out", tmp_path / "run", "--dry-run") == 0
    assert "penalty on 5 (indicator, tau q0.5, target rate 0.1)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_dry_run_reads_no_weights_of_the_policy(
    files: dict[str, Path], tiny_policy_folder: Path, tmp_path: Path
) -> None:
    policy = Path(shutil.copytree(tiny_policy_folder, tmp_path / "policy"))
    weights = policy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start:] = b"\xff" * (len(content) - start)  # a NaN whatever the type
    weights.write_bytes(content)
    words = (files["run"], "--policy", policy, "--out", tmp_path / "run")
    assert train(*words, "--dry-run") == 0
    assert all(bool(tensor.isnan().any()) for tensor in load_file(weights).values())


def in_dry_run(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: object
) -> str:
    """The error of a dry run; nothing is written."""
    capsys.readouterr()
    assert train(files["run"], *more, "--out", tmp_path / "run", "--dry-run") == 2
    assert not (tmp_path / "run").exists()
    return capsys.readouterr().err


@pytest.mark.long
def test_bad_input_a_dry_run_finds_what_the_run_would_find(
    files: dict[str, Path],
    tiny_policy_folder: Path,
    tiny_sarm_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*more: object) -> str:
        return in_dry_run(files, tmp_path, capsys, *more)

    assert "policy.lora.targets ('nowhere',) do not fit" in refused("--set", "policy.lora.targets=[nowhere]")
    assert "longer than the policy's context" in refused("--set", "training.max_new_tokens=100000")
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps({"edits": [{"latent": 3, "max": 0.5}], "fingerprint": "0" * 16}))
    assert "0000000000000000, this reward model has" in refused("--edits-file", edits)
    buffer = tmp_path / "human.safetensors"
    assert main(["latents", "--as-human", "-o", str(buffer), "--quiet"]) == 0
    term = ("--set", "reward.human_kl.latents=[]", "--human", buffer, "--beta", "0.1sd")
    assert "the human buffer was made with head" in refused(*term)
    for folder, option in ((tiny_policy_folder, "--policy"), (tiny_sarm_folder, "--model")):
        copy = Path(shutil.copytree(folder, tmp_path / option.strip("-")))
        (copy / "model.safetensors").unlink()
        assert "safetensors" in refused(option, copy)
        shutil.copy(folder / "model.safetensors", copy)
    config = tmp_path / "policy" / "tokenizer_config.json"
    settings = json.loads(config.read_text())
    settings.pop("chat_template", None)
    config.write_text(json.dumps(settings))
    (tmp_path / "policy" / "chat_template.jinja").unlink(missing_ok=True)
    assert "has no chat template" in refused("--policy", tmp_path / "policy")


def test_flags_make_the_same_configuration_as_a_file(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    controls = tmp_path / "controls.yaml"
    controls.write_text("edits: [7:set=0]\npenalties: []\n")
    flags = [
        "--policy",
        "P",
        "--model",
        "M",
        "--prompts",
        files["prompts"],
        "--penalize",
        "48659:tau=3,alpha=0.1",
    ]
    flags += [
        "--penalize",
        "5:tau=q0.9,alpha=0.5sd",
        "--penalize",
        "6:tau=q0.9,target_rate=0.1",
        "--human",
        files["demos"],
        "--beta",
        "0.05",
        "--seed",
        "3",
    ]
    flags += ["--controls", controls, "--set", "training.learning_rate=1e-4", "--exclude", files["held_out"]]
    assert main(["config", "show", *map(str, flags)]) == 0
    text = capsys.readouterr().out
    shown = yaml.safe_load(text)
    assert shown["reward"]["edits"] == [{"latent": 7, "set": 0.0}]
    assert [item["latent"] for item in shown["reward"]["penalties"]] == [48659, 5, 6]
    assert shown["reward"]["penalties"][2]["target_rate"] == 0.1
    assert "alpha" not in shown["reward"]["penalties"][2]
    assert shown["reward"]["human_kl"]["beta"] == 0.05
    assert shown["data"]["exclude"] == [str(files["held_out"])]
    assert (shown["training"]["seed"], shown["training"]["learning_rate"]) == (3, 0.0001)
    (tmp_path / "run.yaml").write_text(text)
    assert main(["config", "show", str(tmp_path / "run.yaml")]) == 0
    assert capsys.readouterr().out == text


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() >= {"policy", "reward", "training"}


MESSAGES = [
    (["--set", "training.stpes=3"], "--set training.stpes=3: unknown key 'stpes'; did you mean 'steps'?"),
    (["--edit", "64=0"], "latent 64 does not exist: this reward model has 64 latents (0..63)"),
    (["--edit", "3:set=0,max=2"], "--edit 3:set=0,max=2: reward.edits.0: edit of latent 3: set and max"),
    (
        ["--penalize", "3:tau=1,alpha=-1"],
        "--penalize 3:tau=1,alpha=-1: reward.penalties.0: penalty on latent 3",
    ),
    (["--beta", "-1"], "human_kl: beta is -1, it must be >= 0"),
    (["--model", "no/such/sarm"], "reward.model: there is no folder no/such/sarm"),
    (["--policy", "./policy"], "policy.model: there is no folder ./policy"),
    (["--policy", "FOLDER"], "has no config.json"),
    (["--model", "POLICY"], "tiny-policy"),
    (["--prompts", "none.jsonl"], "none.jsonl: No such file or directory"),
    (["--set", "training.max_new_tokens=250"], "prompts.jsonl:3: the prompt has"),
    (["--exclude", "PROMPTS"], "all 12 prompts are in an excluded file"),
    (["--set", "policy.lora.targets=[nothing]"], "nothing"),
    (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    (["--role", "no control"], "the role is to be no control, but the run has controls"),
]


@pytest.mark.parametrize(("words", "message"), MESSAGES, ids=[" ".join(words) for words, _ in MESSAGES])
def test_a_mistake_is_one_clear_line_and_leaves_no_run_folder(
    files: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    places = {"PROMPTS": files["prompts"], "POLICY": files["policy"], "FOLDER": files["run"].parent}
    words = [str(places.get(word, word)) for word in words]
    assert train(files["run"], "--out", tmp_path / "run", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "error: " in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_policy_without_prompts_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--policy", "P") == 2
    error = capsys.readouterr().err
    assert "missing key 'data.prompts'" in error
    assert "--prompts prompts.jsonl" in error


def test_demonstrations_without_a_weight_are_refused(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--policy", "P", "--model", "M", "--prompts", files["prompts"], "--human", files["demos"]]
    assert train(*flags) == 2
    assert "nothing uses the demonstrations" in capsys.readouterr().err


def test_a_misspelled_key_names_file_and_line(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(files["run"].read_text().replace("learning_rate", "lerning_rate"))
    line = path.read_text().splitlines().index("  lerning_rate: 0.01") + 1
    assert train(path, "--out", tmp_path / "run") == 2
    expected = f"{path}:{line}: unknown key 'lerning_rate'; did you mean 'learning_rate'?"
    assert expected in capsys.readouterr().err


@pytest.mark.long
def test_a_second_process_in_a_run_folder_is_refused_and_the_first_loses_no_row(
    files: dict[str, Path], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    first = start(files["run"], "--out", run)
    wait_for(first, run / "metrics.jsonl", 1)
    first.send_signal(signal.SIGSTOP)
    for more in (["--resume"], ["--overwrite"], []):
        assert train(files["run"], "--out", run, *more) == 2
        said = capsys.readouterr().err
        assert f"error: {run} is being written by another process (process {first.pid} on " in said
        assert "hint: wait until it is done or stop it" in said
    first.send_signal(signal.SIGCONT)
    assert first.communicate(timeout=240)[1]
    assert first.returncode == 0
    assert_equal_runs(run, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.long
def test_a_crashed_process_locks_nobody_out(files: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start(files["run"], "--out", run)
    wait_for(first, run / "metrics.jsonl", 2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert train("--out", run, "--resume") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.long
def test_a_comparison_being_written_in_a_run_folder_survives_the_run(
    files: dict[str, Path], tmp_path: Path
) -> None:
    """The run sweeps its folder at every checkpoint: what another process is writing there stays."""
    run = tmp_path / "run"
    assert train(files["run"], "--out", run) == 0
    words = [sys.executable, "-c", _WRITING, str(run / "compare")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        assert train("--out", run, "--resume", "--steps", STEPS + 2) == 0
        writer.communicate("go on\n", timeout=60)
    assert writer.returncode == 0
    assert (run / "compare/a").read_text() == "whole"
    assert list(run.rglob(".*")) == []


_WRITING = """
import sys
from pathlib import Path
from sarm_control.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as temporary:
    print("half", flush=True)
    sys.stdin.readline()
    (temporary / "a").write_text("whole")
"""
