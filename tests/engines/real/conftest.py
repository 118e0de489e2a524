"""`sarm serve` on the lab, the engines' environments, and what the library says of the same answers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from transformers import AutoTokenizer

from sarm_control.embedded import data_file
from sarm_control.engines.reward.controlled_reward import ControlledReward
from sarm_control.engines.reward.open_reward import ControlFiles, open_reward
from sarm_control.reward_model.files.checkpoint import find_folder
from sarm_control.reward_model.reward_model import RewardModel
from tests.engines.real.environments import python_of

HERE = Path(__file__).parent
CONTROLS = """\
reward:
  edits: ["3:max=0.5"]
  penalties: ["5:tau=0.2,alpha=0.1"]
  missing_end_penalty: 0.25
"""
TOKEN = "a-token-for-tests-0123456789"
Client = Callable[..., Any]


class Case(NamedTuple):
    """An answer as an engine has it: token ids of a policy that shares the lab's tokenizer."""

    question: str
    response: str
    ended: bool
    prompt: str
    answer_ids: list[int]


@pytest.fixture(scope="session")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("controls") / "controls.yaml"
    path.write_text(CONTROLS)
    return path


@pytest.fixture(scope="session")
def reward(controls: Path) -> ControlledReward:
    return open_reward(RewardModel.from_pretrained("lab", device="cpu"), ControlFiles(controls))


@pytest.fixture(scope="session")
def tokenizer_folder() -> str:
    return str(find_folder("lab"))


@pytest.fixture(scope="session")
def cases(tokenizer_folder: str) -> list[Case]:
    """Twelve answers, every third cut at its length limit; words the tokenizer knows."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows = [json.loads(line) for line in data_file(Path("lab:human")).read_text().splitlines()[:12]]
    found = []
    for number, row in enumerate(rows):
        messages = [{"role": "user", "content": row["prompt"]}]
        prompt = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        ids = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        ended = number % 3 != 2
        ids = [*ids, tokenizer.eos_token_id] if ended else ids[: max(1, len(ids) // 2)]
        response = str(tokenizer.decode(ids, skip_special_tokens=True))
        found.append(Case(row["prompt"], response, ended, prompt, ids))
    return found


@pytest.fixture(scope="session")
def expected(reward: ControlledReward, cases: list[Case]) -> list[dict[str, float]]:
    """The parts of every case's reward, by the library."""
    scored = reward.score(
        [case.question for case in cases],
        [case.response for case in cases],
        [case.ended for case in cases],
    )
    rewards = reward.breakdown(scored)
    return [{name: float(rewards.columns[name][j]) for name in reward.terms} for j in range(len(cases))]


@contextmanager
def served(*options: str) -> Iterator[str]:
    """`sarm serve` in a process of its own: its URL."""
    command = [sys.executable, "-m", "sarm_control", "serve", "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "serving on " in line)
            yield line.split("serving on ")[1].split(";")[0].strip()
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="session")
def server(controls: Path) -> Iterator[str]:
    with served("--controls", str(controls)) as url:
        yield url


@pytest.fixture(scope="session")
def guarded(controls: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server that wants a token, and the file of the token."""
    file = tmp_path_factory.mktemp("token") / "token.txt"
    file.write_text(TOKEN + "\n")
    with served("--controls", str(controls), "--token-file", str(file), "--max-body-mb", "1") as url:
        yield url, file


@pytest.fixture(scope="session")
def pythons() -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def python(name: str) -> Path:
        if name not in made:
            made[name] = python_of(name)
        return made[name]

    return python


@pytest.fixture(scope="session")
def client(pythons: Callable[[str], Path]) -> Client:
    """Runs `clients/NAME_client.py` in the engine's environment: JSON in, JSON out, the log beside it."""

    def run(engine: str, asked: Mapping[str, Any], **environment: str) -> tuple[Any, str]:
        ended = subprocess.run(
            [str(pythons(engine)), str(HERE / "clients" / f"{engine}_client.py")],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **environment},
            cwd=HERE / "clients",
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        marker = "ANSWERS "
        line = next(line for line in reversed(ended.stdout.splitlines()) if line.startswith(marker))
        return json.loads(line.removeprefix(marker)), ended.stdout + ended.stderr

    return run
