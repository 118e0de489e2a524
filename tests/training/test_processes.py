"""Two real processes on gloo train as one does: metamorphic (number of processes), and what ends them all."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sarm_control.cli import main
from sarm_control.errors import ConfigError
from sarm_control.training.distributed.launcher import in_words, sharding_of
from sarm_control.training.distributed.processes import ALONE
from tests.training.together import CASES, PATIENCE, ROOT, STEPS, Finished, free_port, launch, train

pytestmark = pytest.mark.long

Results = list[dict[str, Any]]


class Ran(NamedTuple):
    """What two processes came to, and how they ended: the second stumbled at last."""

    results: Results
    ended: list[Finished]


@pytest.fixture(scope="module")
def ran(tiny_policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ranks")
    ended = launch("compare", str(tiny_policy_folder), str(folder))
    files = [folder / f"rank{rank}.json" for rank in (0, 1)]
    assert all(file.is_file() for file in files), ended
    return Ran([json.loads(file.read_text()) for file in files], ended)


@pytest.fixture(scope="module")
def ranks(ran: Ran) -> Results:
    return ran.results


def assert_close(ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    assert ours.keys() == theirs.keys()
    for metric, value in theirs.items():
        # what is not known yet is NaN in both
        assert ours[metric] == pytest.approx(value, abs=1e-5, rel=1e-5, nan_ok=True), metric


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_and_evaluate_as_one_does(
    name: str, ranks: Results, tiny_policy_folder: Path
) -> None:
    """The one scores a batch in two pieces, as two do: then what the controls learnt is equal to the bit."""
    alone = train(tiny_policy_folder, ALONE, CASES[name], pieces=2)
    ours, theirs = ranks[0][name]["evaluated"], alone["evaluated"]
    assert ranks[0][name]["state"]["controls"] == alone["state"]["controls"]
    assert_close(ours["metrics"], theirs["metrics"])
    assert ours["fires"] == theirs["fires"]
    assert ours["ledger"].keys() == theirs["ledger"].keys()
    for entry, amounts in theirs["ledger"].items():
        assert ours["ledger"][entry] == pytest.approx(amounts, abs=1e-5), entry
    for ours, theirs in zip(ranks[0][name]["metrics"], alone["metrics"], strict=True):
        assert_close(ours, theirs)
    for ours, theirs in zip(ranks[0][name]["samples"], alone["samples"], strict=True):
        assert [row["response"] for row in ours] == [row["response"] for row in theirs]


@pytest.mark.parametrize("name", CASES)
def test_all_processes_have_the_same_state_to_the_bit(name: str, ranks: Results) -> None:
    """Weights, AdamW's moments, the discriminator and the learnt charges; metrics too."""
    first, second = (results[name] for results in ranks)
    assert first["state"] == second["state"]
    assert "controls" in first["state"]
    assert first["metrics"] == second["metrics"]


@pytest.mark.parametrize("name", CASES)
def test_the_reward_sees_the_whole_batch_once_a_step(name: str, ranks: Results) -> None:
    case = {"prompts_per_step": 2, "answers_per_prompt": 8, **CASES[name]}
    answers = case["prompts_per_step"] * case["answers_per_prompt"]
    assert [results[name]["scored"] for results in ranks] == [[answers] * STEPS] * 2


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "parts" in case])
def test_layers_are_gathered_once_for_a_rollout_and_its_log_probabilities(name: str, ranks: Results) -> None:
    """A rollout makes a pass a token; the update gathers each layer in every micro-batch, and so counts."""
    for results in ranks:
        layers, *steps = results[name]["gathers"]
        assert layers >= 2
        assert len(steps) == STEPS
        for asked, gathered, in_update in steps:
            assert asked == gathered == layers
            assert in_update > layers


def test_an_error_of_one_process_ends_all_and_is_told_once(ran: Ran) -> None:
    assert [process.code for process in ran.ended] == [2, 2]
    told = [process.errors for process in ran.ended]
    assert told == ["", "error: the reward model stumbled\n  hint: help it up\n"]


def test_a_killed_process_ends_all_with_a_message(tiny_policy_folder: Path) -> None:
    first, second = launch("killed", str(tiny_policy_folder))
    assert (first.code, second.code) == (2, -signal.SIGKILL)
    assert first.errors.startswith("error: another of the launched processes ended\n")


DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true"}
RUN = """
policy: {{model: {policy}, lora: {{rank: 2}}}}
reward:
  model: {sarm}
  edits: ["3:max=0.5"]
  penalties: ["5:tau=q0.5,alpha=0.5sd", "4:tau=0.0,target_rate=0.1"]
  human_kl: {{beta: 0.1sd}}
data: {{prompts: {prompts}, human: {human}}}
training:
  {{prompts_per_step: 3, answers_per_prompt: 2, max_new_tokens: 6, micro_batch: 2, reference_answers: 8,
   steps: 1}}
evaluation: {{every: 0}}
"""


def test_accelerate_launches_a_run_that_one_process_takes_up(
    tiny_policy_folder: Path, tiny_sarm_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One step of two processes and one of one are two steps of one; only one process speaks."""
    places = {name: tmp_path / f"{name}.jsonl" for name in ("prompts", "human")}
    rows = [
        {"prompt": f"open the {what} ?", "response": f"yes {what} ."} for what in ("door", "lock", "bread")
    ]
    for place in places.values():
        place.write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    run = tmp_path / "run.yaml"
    run.write_text(RUN.format(policy=tiny_policy_folder, sarm=tiny_sarm_folder, **places))
    config = ROOT / "examples" / "accelerate" / "ddp.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port"]
    command = [sys.executable, *launcher, free_port(), "-m", "sarm_control", "train", str(run)]
    command += ["--track", "tensorboard", "-o"]
    found = subprocess.run(
        [*command, str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("1 steps done") == found.stderr.count("step 1/1:") == 1
    # only the main process tracks
    assert len(list((tmp_path / "two" / "tensorboard").glob("events*"))) == 1
    assert found.stderr.count("tensorboard: tensorboard --logdir") == 1
    assert main(["train", "-o", str(tmp_path / "two"), "--resume", "--steps", "2"]) == 0
    assert main(["train", str(run), "-o", str(tmp_path / "one"), "--steps", "2"]) == 0
    capfd.readouterr()
    files = [tmp_path / name / "metrics.jsonl" for name in ("two", "one")]
    ours, theirs = ([json.loads(line) for line in file.read_text().splitlines()] for file in files)
    assert [row["step"] for row in ours] == [1, 2]
    for row, expected in zip(ours, theirs, strict=True):
        # the end of an interval that is open above is null
        numbers = {name: value for name, value in expected.items() if value is not None}
        assert {name: value for name, value in row.items() if value is not None} == pytest.approx(
            numbers, abs=1e-5, rel=1e-5
        )
        assert {*row} == {*expected}


def test_accelerate_that_starts_one_process_of_two_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert main(["train", "--dry-run"]) == 2
    assert "accelerate launch --cpu started one process" in capsys.readouterr().err


def test_what_an_accelerate_configuration_asks_for() -> None:
    parts = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_MIXED_PRECISION": "no"}
    assert sharding_of({"ACCELERATE_MIXED_PRECISION": "no"}) == "none"
    assert sharding_of({**parts, "FSDP_RESHARD_AFTER_FORWARD": "true"}) == "layers"
    assert sharding_of({**parts, "FSDP_RESHARD_AFTER_FORWARD": "false"}) == "gradients"


def test_the_zero_stages_of_a_deepspeed_configuration() -> None:
    """Nothing, or what FSDP2 puts in parts too; who does it is said."""
    stages = {"0": "none", "2": "gradients", "3": "layers"}
    for stage, sharding in stages.items():
        environment = {**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage}
        assert sharding_of(environment) == sharding
        assert in_words(environment, 2).endswith("; DeepSpeed itself is not started")
    assert in_words({}, 3) == "3 processes, each with the whole policy"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, "does not support the launcher's Megatron-LM"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision is not used"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "does not support FSDP 1"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "cpu"}, "offload_optimizer_device"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"}, "offload_param_device"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO3_INIT": "true"}, "zero3_init_flag"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"}, "deepspeed_config_file"),
        ({**DEEPSPEED, "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "gradient_accumulation_steps is not"),
        ({**DEEPSPEED, "ACCELERATE_GRADIENT_CLIPPING": "1.0"}, "gradient_clipping is not used"),
        ({**DEEPSPEED, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "1"}, "does not support ZeRO stage 1"),
    ],
)
def test_what_is_not_done_is_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sharding_of(environment)


SHIPPED = {"ddp": "none", "fsdp2": "layers", "zero2": "gradients", "zero3": "layers"}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configurations_ask_for_what_is_done(name: str) -> None:
    """By the launcher's own parser, which refuses keys it does not know, and its own variables."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    file = str(ROOT / "examples" / "accelerate" / f"{name}.yaml")
    words = ["--config_file", file, "--main_process_port", "0", "train.py"]
    asked, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    if asked.use_deepspeed:
        asked.deepspeed_fields_from_accelerate_config = ""
        environment = prepare_deepspeed_cmd_env(asked)[1]
    else:
        environment = prepare_multi_gpu_env(asked)
    assert asked.num_processes == 2
    assert sharding_of(environment) == SHIPPED[name]
