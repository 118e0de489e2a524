"""What two real processes run together, and one alone, for the tests that compare them."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import distributed

from sarm_control.cli._errors import run_safely
from sarm_control.errors import ModelError
from sarm_control.latents.human import HumanBuffer
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.reward_model.scored import Scored
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig
from sarm_control.training.distributed.processes import Processes, connected
from sarm_control.training.monitor.evaluation import PromptEvaluation
from sarm_control.training.policy.critic_model import attach_critic
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import encode_prompts
from tests.conftest import make_sarm
from tests.training.test_trainer import CONTROLS, SETTINGS, TEXTS

ROOT = Path(__file__).parents[2]
CASES: dict[str, dict[str, Any]] = {
    "ppo": {},
    "rloo, every weight": {"lora": False, "algorithm": "rloo"},
    "layers in parts": {"parts": "layers"},
    "layers in parts, every weight": {"parts": "layers", "lora": False},
    "gradients in parts, every weight": {"parts": "gradients", "lora": False},
    "a critic of adapters": {"value": "adapter"},
    "a critic of its own": {"value": "model"},
    "a critic of its own, layers in parts": {"value": "model", "parts": "layers"},
    "one prompt, so that the first process has none": {"prompts_per_step": 1, "answers_per_prompt": 3},
}
STEPS = 2
PATIENCE = 600.0


class Counted(PolicyReward):
    """Notes how many answers each call of `score` was given."""

    seen: list[int]

    def score(self, rollout: Any) -> Any:
        self.seen = [*getattr(self, "seen", []), len(rollout)]
        return super().score(rollout)


def trainer_of(
    folder: Path, processes: Processes, *, lora: bool = True, parts: str = "none", **changes: Any
) -> Trainer:
    """A tiny policy and SARM with every control on; `parts` as `Processes.sharding`."""
    config = PolicyConfig(model=str(folder), lora=LoraConfig(rank=2) if lora else None)
    policy, model = Policy.load(config, seed=5), make_sarm()
    prompts = encode_prompts(
        policy, [f"how do i open {text} ?" for text in TEXTS], [str(i) for i in range(len(TEXTS))], 6
    )
    asked = [text for text in ("what is the door ?", "why bread ?") for _ in TEXTS]
    human = HumanBuffer.from_scored(model.score(asked, [*TEXTS, *TEXTS]))
    settings = SETTINGS.model_copy(update={"max_new_tokens": 6, "learning_rate": 1e-2, "seed": 5, **changes})
    attach_critic(policy, settings.value, config, model, seed=settings.seed, longest=32)
    if parts != "none" and processes.count > 1:
        policy.shard(reshard=parts == "layers")
    reward = Counted(model, CONTROLS, human=human, seed=5, processes=processes)
    return Trainer(policy, reward, prompts, settings, processes=processes)


class Gathers:
    """Counts what is gathered of layers in parts, before and after the end of each rollout's passes.

    Attributes:
        layers: decoder layers in parts.
        counts: a step: layers asked to be whole, gathers until they are parted again, gathers in the update.
    """

    def __init__(self, trainer: Trainer) -> None:
        assert trainer.policy.sharding is not None
        self.counts: list[list[int]] = []
        self._asked = self._sent = 0
        layers = trainer.policy.sharding.layers
        self.layers = len(layers)
        for layer in layers:
            layer.unshard = self._asking(layer.unshard)
        gather = distributed.all_gather_single

        def counted(*words: Any, **named: Any) -> Any:
            self._sent += 1
            return gather(*words, **named)

        distributed.all_gather_single = counted
        self._end: Callable[[], None] = lambda: setattr(distributed, "all_gather_single", gather)
        update = trainer.updater.update

        def updated(*words: Any, **named: Any) -> Any:
            self.counts.append([self._asked, self._sent])
            self._asked = self._sent = 0
            found = update(*words, **named)
            self.counts[-1].append(self._sent)
            self._asked = self._sent = 0
            return found

        trainer.updater.update = updated  # type: ignore[method-assign]  # counts around it

    def _asking(self, unshard: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*words: Any, **named: Any) -> Any:
            self._asked += 1
            return unshard(*words, **named)

        return asked

    def start(self) -> None:
        """Forgets what was counted outside of steps."""
        self._asked = self._sent = 0

    def stop(self) -> None:
        """Counts no more."""
        self._end()


def train(folder: Path, processes: Processes, case: Mapping[str, Any], *, pieces: int = 1) -> dict[str, Any]:
    """Metrics and samples of a few steps, what `score` was given, and digests of the state after them.

    Args:
        folder: of the policy.
        processes: who shares the work.
        case: `parts`, `lora`, and settings that differ.
        pieces: score a batch in as many pieces as so many processes would.
    """
    trainer = trainer_of(folder, processes, **case)
    reward = trainer.reward
    assert isinstance(reward, Counted)
    if pieces > 1:
        score_in_pieces(reward.model, pieces)
    gathers = None if trainer.policy.sharding is None else Gathers(trainer)
    trainer.calibrate()
    reports = []
    for _ in range(STEPS):
        if gathers is not None:
            gathers.start()
        reports.append(trainer.step())
    if gathers is not None:
        gathers.stop()
    return {
        "gathers": None if gathers is None else [gathers.layers, *gathers.counts],
        "evaluated": evaluated(trainer),
        "metrics": [report.metrics for report in reports],
        "samples": [report.samples for report in reports],
        "scored": reward.seen,
        "state": {file: digest(named) for file, named in trainer.state().tensors.items()},
    }


def score_in_pieces(model: RewardModel, pieces: int) -> None:
    """The forward passes of several processes, in one."""
    score = model.score

    def scored(prompts: Any, responses: Any, *, ended: Any, **how: Any) -> Scored:
        parts = [Processes(rank, pieces).part(len(responses)) for rank in range(pieces)]
        filled = [part for part in parts if part.start < part.stop]
        return Scored.concatenate(
            [score(prompts[part], responses[part], ended=ended[part], **how) for part in filled]
        )

    model.score = scored  # type: ignore[method-assign, assignment]  # the same in pieces


def evaluated(trainer: Trainer) -> dict[str, Any]:
    """An evaluation of the policy as it is: metrics, monitors, and the ledger."""
    reward: Any = trainer.reward
    prompts = trainer.prompts
    evaluation = PromptEvaluation(
        trainer.policy, reward, prompts, trainer.settings, should_respond=prompts[:3]
    )
    found = evaluation.run(0.1)
    checks = {name: value for finding in found.findings for name, value in finding.metrics().items()}
    ledger = {f"{entry.term} {entry.latent}": [entry.before, entry.after] for entry in found.entries}
    return {
        "metrics": {**found.metrics, **checks},
        "fires": [finding.name for finding in found.findings if finding.fires],
        "ledger": ledger,
    }


def digest(named: Mapping[str, Any]) -> str:
    """One hash of all bits."""
    found = hashlib.sha256()
    for name in sorted(named):
        found.update(name.encode() + named[name].detach().numpy().tobytes())
    return found.hexdigest()


class Finished(NamedTuple):
    """What a process said on stderr and how it ended."""

    code: int
    errors: str


def launch(*arguments: str, count: int = 2, module: str = "tests.training.together") -> list[Finished]:
    """Runs a module, this one, in processes with the environment a launcher gives them."""
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    command = [sys.executable, "-W", "error", "-m", module, *arguments]
    workers = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        errors = [worker.communicate(timeout=PATIENCE)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    return [Finished(worker.returncode, text) for worker, text in zip(workers, errors, strict=True)]


def free_port() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return str(bound.getsockname()[1])


def compare(folder: str, out: str) -> None:
    """Trains every case and keeps what came of it; then the second process fails while it scores."""
    with connected() as processes:
        results = {name: train(Path(folder), processes, case) for name, case in CASES.items()}
        Path(out, f"rank{processes.rank}.json").write_text(json.dumps(results))
        end_while_scoring(folder, processes, stumble)


def killed(folder: str) -> None:
    """The second process is killed while it scores its part of the first step's answers."""
    with connected() as processes:
        end_while_scoring(folder, processes, lambda: os.kill(os.getpid(), signal.SIGKILL))


def end_while_scoring(folder: str, processes: Processes, end: Callable[[], None]) -> None:
    trainer = trainer_of(Path(folder), processes)
    trainer.calibrate()
    if processes.rank == 1:
        reward: Any = trainer.reward
        reward.model.score = lambda *_, **__: end()
    trainer.step()


def stumble() -> None:
    raise ModelError("the reward model stumbled", hint="help it up")


if __name__ == "__main__":
    works: dict[str, Callable[..., None]] = {"compare": compare, "killed": killed}
    work = works[sys.argv[1]]
    sys.exit(run_safely(lambda: work(*sys.argv[2:])))
