"""The settings of a Ray deployment, and the rows that go in and out."""

from pathlib import Path
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sarm_control.engines import ControlFiles
from sarm_control.extras import import_ray


class RewardSettings(BaseModel):
    """What a deployment scores with, and where. Paths have to exist on every machine."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: str = "lab"
    """A reward model: a folder, a hub id, or "lab"."""
    pooling: str | None = None
    """The token a classifier is read at, see `RewardModel.from_pretrained`."""
    output: str | None = None
    """The output of a classifier that is the reward, see `RewardModel.from_pretrained`."""
    controls: Path | None = None
    """A file with a `reward:` section, or the folder of a run."""
    human: Path | None = None
    """Demonstrations for the human-KL term."""
    reference: Path | None = None
    """Answers of the policy before training; amounts in SDs and quantiles are measured on them."""
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
    """Seconds that the first answer of a batch waits for others."""
    learn_window: int | None = Field(default=None, ge=2)
    """Answers of one update of the controls; by default they learn nothing."""
    state_file: Path | None = None
    """The safetensors file that keeps what was learnt over restarts."""
    dtype: str | None = None
    """The trunk's dtype; the default is the checkpoint's."""

    template_date: str | None = None
    """The date for a chat template that writes one, see `RewardModel.from_pretrained`."""

    @model_validator(mode="after")
    def _learning_is_kept(self) -> "RewardSettings":
        if (self.learn_window is None) != (self.state_file is None):
            raise ValueError(
                "learn_window and state_file go together: what is learnt has to outlive its actor"
            )
        return self

    @property
    def files(self) -> ControlFiles:
        """Where the controls come from."""
        return ControlFiles(self.controls, self.human, self.reference)


class AnswerToScore(TypedDict):
    """One answer to be scored; `prompt` is a string or messages."""

    prompt: Any
    response: str
    ended: bool


class AnswerReward(TypedDict):
    """The reward of one answer.

    `score` is the number to train on, `terms` its signed parts in reward units by their names, `truncated`
    the tokens dropped from the left, `tokens` those that were scored, and `human_kl_version` the number of
    updates that the controls had learnt from.
    """

    score: float
    terms: dict[str, float]
    ended: bool
    truncated: int
    tokens: int
    human_kl_version: int


def require_serve() -> Any:
    """The `ray.serve` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_ray("ray.serve", needed="a reward deployment needs Ray Serve")
