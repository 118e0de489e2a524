"""GRPO and RLOO trainers of TRL on the lab's policy, small enough for a CPU."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sarm_control import Controls, HumanKL, Penalty, RewardModel
from sarm_control.data.rows import read_rows
from sarm_control.embedded import world_folder
from sarm_control.engines.trl import TrlReward, reward_function
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.rows import score_rows

MOST = 24
HELD_OUT = 24


def learning_reward(model: RewardModel | None = None, **options: Any) -> TrlReward:
    """A reward with a penalty, and a human-KL term that learns."""
    rm = RewardModel.from_pretrained("lab") if model is None else model
    human = score_rows(rm, read_rows(Path("lab:human"), want={"answer"})[:200])
    rates = (human.latents.columns(range(human.latents.size)) > 0).mean(axis=0)
    latents = tuple(int(i) for i in sorted(range(len(rates)), key=lambda i: abs(rates[i] - 0.5))[:6])
    controls = Controls(
        penalties=[Penalty(latents[0], tau=0.0, alpha=0.05)], human_kl=HumanKL(beta=0.05, latents=latents)
    )
    return reward_function(rm, controls, human=HumanBuffer.from_scored(human, latents), **options)


def prompts(count: int, *, file: str = "lab:train_prompts", plain: bool = False) -> list[dict[str, Any]]:
    """Rows of a data set: messages, or plain text."""
    texts = [str(row.prompt) for row in read_rows(Path(file), want={"prompt"})[:count]]
    return [{"prompt": text if plain else [{"role": "user", "content": text}]} for text in texts]


def trainer(
    kind: str,
    reward: Any,
    folder: Path,
    *,
    callbacks: Any = None,
    plain: bool = False,
    held_out: int = HELD_OUT,
    **args: Any,
) -> Any:
    """A trainer of TRL; `kind` is `grpo` or `rloo`, `args` go to its configuration."""
    trl = pytest.importorskip("trl", reason='wants the extra "trl"')
    from datasets import Dataset

    config, made = {
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
    }[kind]
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 4 * HELD_OUT,
        "num_generations": 4,
        "num_generations_eval": 4,
        "max_completion_length": MOST,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "beta": 0.0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    return made(
        model=str(world_folder() / "policy"),
        reward_funcs=reward,
        args=config(**{**settings, **args}),
        train_dataset=Dataset.from_list(prompts(256, plain=plain)),
        eval_dataset=Dataset.from_list(prompts(held_out, file="lab:held_out_prompts", plain=plain)),
        callbacks=[reward.callback] if callbacks is None else callbacks,
    )


class Recorder:
    """Hands every call on to a reward and keeps what came in and out."""

    def __init__(self, reward: TrlReward) -> None:
        self.reward = reward
        self.callback = reward.callback
        self.__name__ = "recorded"
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **given: Any) -> list[float]:
        learning = self.callback.learning
        rewards = self.reward(**given)
        self.calls.append({**given, "rewards": rewards, "learning": learning})
        return rewards


def weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.state_dict().items()}
