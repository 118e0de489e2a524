"""`sarm train` from an adapter: runs that start where an earlier run ended, the plan, and bad input."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from sarm_control.cli import main
from sarm_control.comparison.trained_run import open_run
from sarm_control.training.config.run_config import PolicyConfig
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import encode_prompts, sample_answers
from sarm_control.training.rollout.sampler import CachedSampler
from sarm_control.training.run.checkpoint import list_checkpoints

PROMPTS = [
    f"how do i {verb} the {thing} ?" for verb in ("cook", "open") for thing in ("bread", "lock", "door")
]
WAYS = (("merge",), ("merge", "policy.lora=null"), ("continue",))


def train(*words: object) -> int:
    return main(["train", *map(str, words)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_policy_folder: Path, tiny_sarm_folder: Path) -> Path:
    """A folder with a finished run on the tiny policy, and its run file."""
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    settings = {
        "policy": {"model": str(tiny_policy_folder)},
        "reward": {"model": str(tiny_sarm_folder)},
        "data": {"prompts": str(folder / "prompts.jsonl")},
        "training": {
            "steps": 2,
            "prompts_per_step": 3,
            "max_new_tokens": 6,
            "learning_rate": 3e-2,
            "reference_answers": 8,
        },
        "checkpoints": {"every": 1},
        "evaluation": {"every": 0},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    first = ("--set", "policy.lora.rank=2", "--set", "policy.lora.alpha=4")
    assert train(folder / "run.yaml", *first, "--out", folder / "first") == 0
    return folder


def settings_of(way: tuple[str, ...]) -> list[str]:
    return [word for key in (f"policy.adapter={way[0]}", *way[1:]) for word in ("--set", key)]


def greedy(policy: Policy, *, reference: bool = False) -> tuple[tuple[int, ...], ...]:
    rows = encode_prompts(policy, PROMPTS, [f"row {i}" for i in range(len(PROMPTS))], 6)
    return sample_answers(
        policy,
        rows,
        answers_per_prompt=1,
        max_new_tokens=6,
        temperature=1e-4,
        seed=0,
        purpose=("greedy",),
        sampler=CachedSampler(8, reference),
    ).answers


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_a_run_from_an_adapter_starts_at_the_earlier_runs_policy_and_resumes_to_the_bit(
    place: Path, tiny_policy_folder: Path, tmp_path: Path, way: tuple[str, ...]
) -> None:
    words = (place / "run.yaml", "--policy", place / "first" / "adapter", *settings_of(way))
    before = greedy(Policy.load(PolicyConfig(model=str(place / "first" / "policy")), device="cpu"))
    assert before != greedy(Policy.load(PolicyConfig(model=str(tiny_policy_folder)), device="cpu"))

    assert train(*words, "--steps", 0, "--out", tmp_path / "start") == 0
    assert greedy(open_run(tmp_path / "start").load_policy(device="cpu")) == before
    assert train(*words, "--out", tmp_path / "whole") == 0
    run = open_run(tmp_path / "whole").load_policy(device="cpu")
    assert greedy(run, reference=True) == before, "the base policy of a comparison is the start"
    written = Policy.load(PolicyConfig(model=str(tmp_path / "whole" / "policy")), device="cpu")
    assert greedy(written) == greedy(run)
    if "policy.lora=null" not in way:
        adapter = Policy.load(PolicyConfig(model=str(tmp_path / "whole" / "adapter")), device="cpu")
        assert greedy(adapter) == greedy(run)

    cut = Path(shutil.copytree(tmp_path / "whole", tmp_path / "cut"))
    shutil.rmtree(list_checkpoints(cut)[-1])
    manifest = json.loads((cut / "manifest.json").read_text())
    del manifest["finished"]
    (cut / "manifest.json").write_text(json.dumps(manifest))
    assert train(*words, "--out", cut, "--resume") == 0
    for name in ("metrics.jsonl", "samples.jsonl", "config.yaml"):
        assert (cut / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.long
def test_a_comparison_takes_the_adapter_as_the_base_policy(place: Path, tmp_path: Path) -> None:
    words = (place / "run.yaml", "--policy", place / "first" / "adapter", "--set", "policy.adapter=continue")
    assert train(*words, "--steps", 0, "--out", tmp_path / "same") == 0
    asked = ["compare", tmp_path / "same", "--prompts", place / "prompts.jsonl", "-o", tmp_path / "report"]
    assert main([*map(str, asked)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "report" / "answers.jsonl").read_text().splitlines()]
    assert {row["kl"] for row in rows if row["policy"] != "base"} == {0.0}


@pytest.mark.long
def test_a_run_on_the_labs_policy_has_an_adapter_that_finds_it(tmp_path: Path) -> None:
    small = ["--steps", 1, "--set", "training.prompts_per_step=2", "--set", "training.max_new_tokens=4"]
    small += ["--set", "training.reference_answers=4", "--set", "evaluation.every=0"]
    assert train(*small, "--out", tmp_path / "lab") == 0
    settings = json.loads((tmp_path / "lab" / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "lab"
    trained = [
        greedy(Policy.load(PolicyConfig(model=str(tmp_path / "lab" / part)), device="cpu"))
        for part in ("policy", "adapter")
    ]
    assert trained[0] == trained[1]


@pytest.mark.long
def test_a_dry_run_tells_what_becomes_of_the_adapter(
    place: Path, tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = place / "first" / "adapter"
    words = (place / "run.yaml", "--policy", adapter, "--out", tmp_path / "run", "--dry-run")
    assert train(*words) == 0
    assert f"(an adapter merged into {tiny_policy_folder}), LoRA rank 16" in capsys.readouterr().err
    assert train(*words, "--set", "policy.adapter=continue") == 0
    assert f"(an adapter on {tiny_policy_folder}), the adapter trained on" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_bad_input_a_dry_run_finds_it_by_the_files(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(place / "first" / "adapter", tmp_path / "copy"))

    def refused(*words: object) -> str:
        capsys.readouterr()
        assert (
            train(place / "run.yaml", "--policy", copy, *words, "--out", tmp_path / "run", "--dry-run") == 2
        )
        return capsys.readouterr().err

    rank = ("--set", "policy.adapter=continue", "--set", "policy.lora.rank=16")
    assert "policy.lora.rank is 16, but the adapter" in refused(*rank)
    none = ("--set", "policy.adapter=continue", "--set", "policy.lora=null")
    assert "policy.lora is null" in refused(*none)
    path = copy / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "r": 3}))
    for way in ("merge", "continue"):
        said = refused("--set", f"policy.adapter={way}")
        assert "does not fit its base: base_model.model." in said
        assert "has the shape (2, " in said
        assert "not (3, " in said
    path.write_text(json.dumps({**settings, "base_model_name_or_path": "../gone/base"}))
    assert "its base model ../gone/base is not there" in refused()
    path.write_text(json.dumps(settings))
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    assert "a pickle, which is never loaded because it can run code" in refused()
