"""The reward as a Ray Serve deployment: replicas that score, one owner of what the human-KL term learns.

    from ray import serve
    from sarm_control.engines.ray import RewardSettings, reward_deployment

    handle = serve.run(reward_deployment(RewardSettings(model="lab", replicas=2)))

or, from a shell, `serve run sarm_control.engines.ray:reward_deployment model=lab replicas=2`. Replicas
answer `POST /v1/score` over HTTP and `handle.score.remote(answers)` inside Ray.
"""

import asyncio
import importlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sarm_control.engines.opening import ControlFiles
from sarm_control.engines.ray_package import import_ray
from sarm_control.errors import TrainingError

if TYPE_CHECKING:
    from ray.serve import Application


class RewardSettings(BaseModel):
    """What a deployment scores with, and on what; paths have to be found on every machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str = "lab"
    """A SARM: a folder, a hub id, or "lab"."""
    controls: Path | None = None
    """A file with a `reward:` section, or the folder of a run."""
    human: Path | None = None
    """Demonstrations for the human-KL term."""
    reference: Path | None = None
    """Answers of the policy before training, the unit of SDs and quantiles."""
    standardize: bool = False
    """Rewards are `(total - mean) / sd` of the reference instead of reward units."""
    replicas: int = Field(default=1, ge=1)
    """Processes that score, each with a model of its own."""
    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs of a replica; with less than 1, several replicas share one."""
    cpus: float = Field(default=1.0, ge=0.0)
    """CPU cores of a replica."""
    batch_tokens: int = Field(default=16_384, ge=1)
    """Padded tokens of one forward pass; an answer that is longer goes alone."""
    batch_wait: float = Field(default=0.005, ge=0.0)
    """Seconds the first answer of a batch waits for others."""
    learn_window: int | None = Field(default=None, ge=2)
    """Answers after which the controls learn from the latest so many; the default freezes them."""
    state_file: Path | None = None
    """Where what was learnt is kept (safetensors) and taken up again."""
    dtype: str | None = None
    """The trunk's dtype; the default is the checkpoint's."""

    template_date: str | None = None
    """The day a chat template that writes the date is told, see `RewardModel.from_pretrained`."""

    @model_validator(mode="after")
    def _learning_is_kept(self) -> "RewardSettings":
        if (self.learn_window is None) != (self.state_file is None):
            raise ValueError(
                "learn_window and state_file go together: what is learnt has to outlive its owner"
            )
        return self

    @property
    def files(self) -> ControlFiles:
        """Where the controls come from."""
        return ControlFiles(self.controls, self.human, self.reference)


class Answer(TypedDict):
    """One answer to be scored; `prompt` is a string or messages."""

    prompt: Any
    response: str
    ended: bool


class Paid(TypedDict):
    """What one answer is paid.

    `score` is what to train on, `terms` its signed parts in reward units by their names, `truncated` the
    tokens dropped from the left, `tokens` those that were scored, and `human_kl_version` counts how often
    the controls had learnt before.
    """

    score: float
    terms: dict[str, float]
    ended: bool
    truncated: int
    tokens: int
    human_kl_version: int


def reward_deployment(settings: RewardSettings) -> "Application":
    """An application for `serve.run`, `serve run` or the YAML of `serve deploy`.

    One replica owns what the controls learn. The others take it from there before every batch, or once
    where nothing learns, and every answer says which version paid for it.

    Raises:
        MissingExtraError: Ray Serve is not installed.
    """
    require_serve()
    replica = importlib.import_module("sarm_control.engines.ray_replica")
    application: Application = replica.application(settings)
    return application


def require_serve() -> Any:
    """The `ray.serve` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_ray("ray.serve", needed="a reward deployment needs Ray Serve")


async def ask(handle: Any, answers: Sequence[Answer], *, patience: float = 600.0) -> list[Paid]:
    """What N answers are paid, over a handle: asked again when the replica that worked on them is lost.

    Args:
        handle: as `serve.run` returns it.
        answers: [N].
        patience: seconds after which a loss is an error.

    Raises:
        TrainingError: replicas are lost for longer than patience lasts.
        ModelError, DataError: as the replica raised it (inside Ray's own error).
    """
    lost = importlib.import_module("ray.exceptions").RayActorError
    until = time.monotonic() + patience
    while True:
        try:
            paid: list[Paid] = await handle.score.remote(list(answers))
        except lost as error:
            if time.monotonic() > until:
                raise TrainingError(f"no replica stayed to score {len(answers)} answers: {error}") from error
            await asyncio.sleep(0.2)
        else:
            return paid
