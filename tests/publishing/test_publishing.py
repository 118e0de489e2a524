"""Cards and uploads: golden (sections), oracle (the hub's reader of cards; bytes that arrive), bad input."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from sarm_control.cli import main
from sarm_control.errors import OutputError
from sarm_control.publishing import contents_of
from tests.publishing.fake_hub import TOKEN, hub

SRC = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path) -> Path:
    """A run of one step whose files name a folder of this machine."""
    folder = tmp_path_factory.mktemp("publishing")
    prompts = [f"how do i {verb} the door ?" for verb in ("cook", "open", "pick")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts))
    settings = {
        "policy": {"model": str(tiny_policy_folder), "lora": {"rank": 2}},
        "reward": {
            "model": str(tiny_sarm_folder),
            "edits": ["3:max=0.5"],
            "penalties": ["5:tau=q0.5,alpha=0.5sd"],
        },
        "data": {"prompts": str(folder / "prompts.jsonl")},
        "training": {"steps": 1, "prompts_per_step": 2, "max_new_tokens": 4, "reference_answers": 8},
        "evaluation": {"every": 0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(folder / "run.yaml"), "-o", str(folder / "first"), "--quiet"]) == 0
    return folder / "first"


def card(*words: object) -> int:
    return main(["card", *map(str, words), "--overwrite"])


def push(
    source: Path, endpoint: str, *words: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the hub's client reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_TOKEN_PATH": str(source / "no-token"),
        "PYTHONPATH": str(SRC),
    }
    known = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    environment = {**known, **settings, **({"HF_TOKEN": token} if token else {})}
    command = [sys.executable, "-m", "sarm_control", "push", str(source), "me/first", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_the_card_of_a_run_says_what_is_known_and_what_is_not(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "README.md"
    assert card(run, "-o", place, "--license", "apache-2.0", "--title", "A | title") == 0
    assert f"next: sarm push {run} OWNER/NAME --dry-run" in capsys.readouterr().err
    text = place.read_text()
    found = ModelCard(text)
    assert found.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sarm-control", "rlhf", "ppo"],
        "license": "apache-2.0",
    }
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["Data", "Controls", "Evidence", "Figures", "Commands", "Limits"]
    assert "Not compared with its base: `sarm compare` was not run." in text
    assert "No evaluation was made during the run." in text
    assert "| edit | 3:max=0.5 |" in text
    assert "| penalty | latent 5: indicator above tau q0.5, alpha 0.5sd |" in text
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| `reward/total` | {last['reward/total']:.4g} | {last['reward/total']:.4g} |" in text


def test_no_path_of_the_machine_reaches_the_card(run: Path, tmp_path: Path) -> None:
    assert card(run, "-o", tmp_path / "README.md") == 0
    text = (tmp_path / "README.md").read_text()
    assert str(run.parent) not in text
    assert "/tmp" not in text
    again = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert again["data"]["prompts"] == "prompts.jsonl"


def test_a_policy_in_a_folder_of_this_machine_is_no_base_on_the_hub(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is typed as `runs/policy` looks like an id of the hub."""
    monkeypatch.chdir(run.parent)
    copy = Path("copies/run")
    shutil.copytree(run, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    for base, known in (("copies/run", {}), ("owner/policy", {"base_model": "owner/policy"})):
        config["policy"]["model"] = base
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        assert card(copy, "-o", tmp_path / "README.md") == 0
        found = ModelCard((tmp_path / "README.md").read_text()).data.to_dict()
        assert {key: value for key, value in found.items() if key == "base_model"} == known


@pytest.mark.long
def test_a_comparison_and_a_discovery_become_evidence(run: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(
        "".join(json.dumps({"prompt": f"what is {what} ?"}) + "\n" for what in ("bread", "door"))
    )
    compared = tmp_path / "compare"
    assert main(["compare", str(run), "--prompts", str(held_out), "-o", str(compared), "--quiet"]) == 0
    features = tmp_path / "found" / "features.json"
    features.parent.mkdir()
    one = {"latent": 7, "kind": "paid-for-bad", "effect": -0.25, "low": -0.5, "high": -0.125, "q": 0.01}
    features.write_text(json.dumps({"goal": "better", "lists": {"promotes": [], "harms": [one]}}))
    assert (
        card(run, "-o", tmp_path / "README.md", "--comparison", compared, "--discovery", features.parent) == 0
    )
    text = (tmp_path / "README.md").read_text()
    report = json.loads((compared / "report.json").read_text())
    assert all(f"- {sentence}" in text for sentence in report["headline"])
    assert "Compared with its base on 2 prompts (`held_out.jsonl`)" in text
    assert "| 7 | paid-for-bad | -0.25 | [-0.5, -0.125] | 0.01 |" in text
    assert "No latent promotes." in text


def test_the_card_of_a_reward_model(tiny_sarm_folder: Path, tmp_path: Path) -> None:
    assert card(tiny_sarm_folder, "-o", tmp_path / "README.md") == 0
    found = ModelCard((tmp_path / "README.md").read_text())
    assert found.data.to_dict()["tags"] == ["sarm-control", "reward-model", "sparse-autoencoder"]
    assert "A reward model with 64 latents, of which an answer keeps 8." in found.text
    assert found.text.count("\n| ") >= 11


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (lambda folder: folder / "absent", "no such folder", "name a run folder"),
        (lambda folder: folder, "is neither a run of sarm train nor", "it has no config.yaml"),
    ],
)
def test_what_is_no_run_and_no_model_is_refused(
    make: Callable[[Path], Path], message: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", str(make(tmp_path))]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert hint in said


def test_a_run_without_a_policy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(OutputError, match="has no trained policy yet"):
        contents_of(tmp_path)


def test_a_card_of_the_lab_needs_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "lab"]) == 2
    assert "sarm card lab -o README.md" in capsys.readouterr().err


def test_an_adapter_whose_base_is_a_path_stays_here(run: Path) -> None:
    contents = contents_of(run)
    assert not [name for name in contents.files if name.startswith("adapter/")]
    assert "its base is a path of this machine" in contents.left_out[0]
    assert not {"samples.jsonl", "timing.jsonl", "config.yaml", "manifest.json"} & {
        path.name for path in contents.files.values() if path.parent == run
    }


def test_a_dry_run_lists_files_and_sizes_and_asks_nobody(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(run), "me/first", "--dry-run"]) == 0
    said = capsys.readouterr()
    listed = [line.split()[-1] for line in said.out.splitlines()[:-1]]
    assert listed == ["README.md", *contents_of(run).files]
    assert f"in {len(listed)} files, to me/first" in said.out
    assert "next: sarm push" in said.err
    assert "--dry-run" not in said.err.split("next:")[1]


@pytest.mark.long
def test_what_is_pushed_arrives_byte_for_byte_in_one_commit(run: Path) -> None:
    with hub(503, 503) as server:
        done = push(run, server.endpoint)
        assert done.returncode == 0, done.stderr
    assert server.requests.count("POST /api/repos/create") == 3
    assert server.requests.count("POST /api/models/me/first/commit/main") == 1
    assert {name: path.read_bytes() for name, path in contents_of(run).files.items()} == {
        name: content for name, content in server.files.items() if name != "README.md"
    }
    assert ModelCard(server.files["README.md"].decode()).data.to_dict()["library_name"] == "transformers"
    assert server.private is True
    assert server.message == "sarm push: run first"
    assert f"{server.endpoint}/me/first/commit/" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("fails", "token", "message", "hint"),
    [
        ((), "hf_wrong", "does not accept the token (401)", "set HF_TOKEN"),
        ((403,), TOKEN, "does not let this token write to me/first (403)", "is the owner right"),
        ((500, 502, 503), TOKEN, "fails (503), also when asked again", "try again later"),
        ((), None, "no token for the hub", "hf auth login"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(
    fails: tuple[int, ...], token: str | None, message: str, hint: str, run: Path
) -> None:
    with hub(*fails) as server:
        done = push(run, server.endpoint, token=token)
    assert done.returncode == 2
    assert message in done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not server.files


@pytest.mark.long
def test_a_hub_that_is_gone_is_one_clear_line(run: Path) -> None:
    with hub() as server:
        endpoint = server.endpoint
    done = push(run, endpoint)
    assert done.returncode == 2
    assert f"{endpoint} cannot be reached" in done.stderr
    assert "check the network and HF_ENDPOINT; nothing was uploaded" in done.stderr
    assert "Traceback" not in done.stderr
