"""The settings of a training run: frozen, bounded, and refusing keys they do not know.

Paths are kept as they were written and are relative to the current folder.
Importing this module loads neither torch nor transformers.
"""

import dataclasses
import os
import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sarm_control.control import (
    Controls,
    Edit,
    HumanKL,
    PatternPenalty,
    Penalty,
    parse_edit,
    parse_penalty,
)
from sarm_control.data import RowOptions, check_columns, parse_columns
from sarm_control.embedded import HELD_OUT_PROMPTS, LAB, TRAIN_PROMPTS, local_path
from sarm_control.errors import ConfigError
from sarm_control.training.config.check_names import RENAMED, Check
from sarm_control.training.config.template_day import TemplateDay
from sarm_control.training.config.tracker_names import TrackerName

_SD_AMOUNT = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?sd")


def _no_boolean(value: Any) -> Any:
    # pydantic takes true for 1, and `steps: true` would train one step
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


def _amount(value: Any) -> Any:
    if isinstance(value, str) and _SD_AMOUNT.fullmatch(value.strip()):
        return value.strip()
    try:
        number = float(_no_boolean(value))
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise ValueError(f"{value!r} is neither a number >= 0 nor a number of SDs such as '1sd'")
    return number


def _edit(value: Any) -> Any:
    return parse_edit(value) if isinstance(value, str) else value


def _penalty(value: Any) -> Any:
    return parse_penalty(value) if isinstance(value, str) else value


def _columns(value: Any) -> Any:
    return dict(parse_columns(value)) if isinstance(value, str) else value


def _known_columns(value: dict[str, str]) -> dict[str, str]:
    return dict(check_columns(value))


def _listed(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _monitors(value: Any) -> Any:
    """Names of monitors; old names are accepted for one version, with a warning."""
    names = _listed(value)
    if not isinstance(names, list | tuple):
        return names
    for name in names:
        if isinstance(name, str) and name in RENAMED:
            warnings.warn(
                f"evaluation.stop_on: the monitor {name} is {RENAMED[name]} now", FutureWarning, stacklevel=2
            )
    return [RENAMED.get(name, name) if isinstance(name, str) else name for name in names]


def _once(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    return tuple(dict.fromkeys(names))


def _edits_agree(edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    Controls(edits=edits)
    return edits


def _penalties_agree(penalties: tuple[Penalty, ...]) -> tuple[Penalty, ...]:
    Controls(penalties=penalties)
    return penalties


def _patterns(value: dict[str, float | str]) -> dict[str, float | str]:
    try:
        # made for their checks alone: the section keeps the mapping as it was written
        _ = [PatternPenalty(*item) for item in value.items()]
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


def _plain(value: Any) -> Any:
    """The value of a control as JSON data, without the fields that are not set."""
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: _plain(item) for name, item in items if item is not None}
    return value


Count = Annotated[int, BeforeValidator(_no_boolean)]
Number = Annotated[float, BeforeValidator(_no_boolean)]
Amount = Annotated[float | str, BeforeValidator(_amount)]
PathText = Annotated[Path, AfterValidator(local_path), PlainSerializer(os.fspath, return_type=str)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class LoraConfig(_Section):
    """Low-rank adapters; the reference policy is the same model with the adapters switched off."""

    rank: Count = Field(default=16, ge=1, le=4096)
    """Rank of every adapter."""

    alpha: Number = Field(default=32.0, gt=0)
    """Scale of the adapters: their output is multiplied by alpha / rank."""

    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the modules that get an adapter, or `all-linear`."""


class PolicyConfig(_Section):
    """The language model that is trained."""

    model: str = Field(default=LAB, min_length=1)
    """Hub id or folder of a causal language model with a chat template, or of a LoRA adapter, which names
    its base; `lab` is the embedded one."""

    adapter: Literal["merge", "continue"] = "merge"
    """What becomes of an adapter named by `model`: it is merged into its base, or itself trained on. It is
    part of the reference either way."""

    lora: LoraConfig | None = LoraConfig()
    """Adapters; `null` trains every weight. Under `adapter: continue` what is left out is as in the
    adapter."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type the policy computes in; `auto` is bfloat16 for a checkpoint in half precision where the
    processor supports it, else float32. Log-probabilities, losses and rewards are always float32."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: uses less memory and is slower."""

    @model_validator(mode="after")
    def _continues_an_adapter(self) -> "PolicyConfig":
        if self.adapter == "continue" and self.lora is None:
            # a type of its own: `validation` shows its text as it is, where the named key was written
            raise PydanticCustomError(
                "disagreement",
                "policy.adapter: continue trains an adapter on, but policy.lora is null: leave it out, or "
                "use merge to train every weight",
                {"key": "adapter"},
            )
        return self

    @field_serializer("lora")
    def _without_the_adapters(self, lora: LoraConfig | None) -> dict[str, Any] | None:
        """What is left out is no default but the adapter's own where one is continued."""
        return (
            None if lora is None else lora.model_dump(mode="json", exclude_unset=self.adapter == "continue")
        )


class RewardConfig(_Section):
    """The reward model that rewards the policy, and the controls on its reward."""

    model: str = Field(default=LAB, min_length=1)
    """Hub id or folder of a reward model; `lab` is the embedded SARM."""

    edits: Annotated[tuple[Annotated[Edit, BeforeValidator(_edit)], ...], AfterValidator(_edits_agree)] = ()
    """Changes of latents before the head: `12345:max=2` or `{latent: 12345, max: 2}`; for the latents of a
    discovery `@features.json#harms[:3]=0`."""

    penalties: Annotated[
        tuple[Annotated[Penalty, BeforeValidator(_penalty)], ...], AfterValidator(_penalties_agree)
    ] = ()
    """Amounts subtracted while a latent fires: `48659:tau=3,alpha=0.5sd`, `48659:tau=3,target_rate=0.1` or a
    mapping."""

    patterns: Annotated[dict[str, Amount], AfterValidator(_patterns)] = {}
    """Regular expressions, and what an answer loses in which one is found: `{"(?i)happy to help": 1sd}`."""

    human_kl: HumanKL | None = None
    """Penalty on latents unlike those of the human demonstrations in `data.human`; `null` is off."""

    fingerprint: str | None = None
    """The head that the latent numbers belong to (`sarm discover` prints it); another head is refused."""

    standardize: bool = True
    """Shift and scale the total by the reference policy's frozen mean and SD."""

    missing_end_penalty: Amount = "1sd"
    """Subtracted from an answer that hit `max_new_tokens`: reward units, or SDs of the reference reward."""

    shaping: Literal["none", "par"] = "none"
    """`par` bounds the total, all controls included, by a sigmoid around the rewards of reference answers
    (Preference As Reward)."""

    par_answers: Count = Field(default=4, ge=0, le=1024)
    """Reference answers to each prompt that `par` compares with, sampled when a prompt is first drawn; 0
    compares with the mean over all prompts instead."""

    # only what is set: config.yaml would list every operation that an edit does not have as null
    @field_serializer("edits", "penalties", "human_kl")
    def _without_unset(self, value: Any) -> Any:
        return _plain(value)

    @property
    def has_controls(self) -> bool:
        """Whether an edit, a penalty, a pattern or the human-KL term changes the reward."""
        return bool(self.edits or self.penalties or self.patterns or self.human_kl is not None)

    @property
    def pattern_penalties(self) -> tuple[PatternPenalty, ...]:
        """The items of `patterns`."""
        return tuple(PatternPenalty(pattern, alpha) for pattern, alpha in self.patterns.items())

    def controls(self) -> Controls:
        """The edits, penalties and human-KL term as one object."""
        return Controls(
            edits=self.edits,
            penalties=self.penalties,
            human_kl=self.human_kl,
            fingerprint=self.fingerprint,
        )


Overlong = Literal["error", "skip", "truncate"]


class DataConfig(_Section):
    """What the policy is trained on."""

    prompts: PathText = TRAIN_PROMPTS
    """A file of prompts (any row kind; only the prompt is used). The policy `lab` has embedded ones as
    the default; any other policy needs a file."""

    columns: Annotated[dict[str, str], BeforeValidator(_columns), AfterValidator(_known_columns)] = {}
    """Fields that have other names in `prompts` and `human`: `{prompt: question}`, or `prompt=question`."""

    rows: Count | None = Field(default=None, ge=1)
    """The first rows of `prompts` that are read (of a data set on the hub: downloaded); `null` reads all."""

    human: PathText | None = None
    """Human demonstrations for `reward.human_kl`: a file (`prompt`, `response`), a folder of
    `sarm latents`, or the human buffer of `sarm latents --as-human`."""

    template_date: TemplateDay = None
    """The day that a chat template writes, where it writes one: `today` (when the run starts) or a day such
    as 2026-01-31; `null` is the template's own day, else 2024-07-26."""

    exclude: tuple[PathText, ...] = ()
    """Files whose prompts are not trained on, for example evaluation sets."""

    overlong: Overlong = "error"
    """A prompt, also of an evaluation, that leaves less than `training.max_new_tokens` in the policy's
    context, or fills the reward model's: `error` names it, `skip` leaves it out, `truncate` drops its first
    tokens."""

    @property
    def row_options(self) -> RowOptions:
        """How rows of `prompts` and `human` are read."""
        return RowOptions(tuple(self.columns.items()))


class TrainingConfig(_Section):
    """Proximal policy optimisation, or one of its critic-free relatives."""

    algorithm: Literal["ppo", "rloo", "grpo"] = "ppo"
    """`ppo` has a value head and an advantage for each token. `rloo` and `grpo` compare an answer with the
    other answers to its prompt: with their mean, or in SDs. The KL is part of the reward in all three."""

    value: Literal["head", "adapter", "model"] = "head"
    """Where PPO's values come from: the policy's own states; a second LoRA adapter on its base; or a separate
    critic that starts as the SARM's trunk (with adapters if the policy has them)."""

    steps: Count = Field(default=100, ge=0)
    """Total number of rollout-and-update steps; the only key that may change on resume, and only grow."""

    prompts_per_step: Count = Field(default=16, ge=1)
    """Prompts drawn for each step."""

    answers_per_prompt: Count = Field(default=2, ge=1)
    """Answers sampled for each prompt."""

    max_new_tokens: Count = Field(default=64, ge=1, le=131072)
    """Longest answer in tokens, the end-of-turn included."""

    temperature: Number = Field(default=1.0, gt=0, le=10)
    """Divides the logits, in sampling and for the policy and the reference."""

    sampler: Literal["ours", "generate"] = "ours"
    """What decodes a step's answers: `ours`, or transformers' `generate` with a static cache, compiled on a
    GPU and replayed as CUDA graphs (not measured on one yet)."""

    importance_cap: Number | None = Field(default=2.0, ge=1)
    """Largest importance weight of a token that another sampler drew; `null` uses no weights. Sampler `ours`
    needs none."""

    epochs: Count = Field(default=1, ge=1, le=100)
    """Passes over the answers of a step."""

    minibatches: Count = Field(default=1, ge=1)
    """Optimizer updates in one epoch; at most the answers of a step."""

    micro_batch: Count = Field(default=8, ge=1)
    """Answers in one forward and backward pass; changes memory, not results."""

    learning_rate: Number = Field(default=1e-4, gt=0, le=1)
    """AdamW step size of the policy."""

    value_learning_rate: Number = Field(default=1e-3, gt=0, le=1)
    """AdamW step size of the value head and of a critic's other weights."""

    warmup_steps: Count = Field(default=0, ge=0)
    """Steps over which both learning rates rise linearly from 0."""

    clip: Number = Field(default=0.2, gt=0, le=1)
    """Clip range of the probability ratio."""

    value_clip: Number = Field(default=0.2, gt=0)
    """Clip range of the value estimate around the value at rollout."""

    value_coef: Number = Field(default=0.1, ge=0)
    """Weight of the value loss."""

    kl_coef: Number = Field(default=0.05, ge=0)
    """Weight of the per-token k1 KL to the reference policy in the reward; `kl_target` moves it."""

    kl_target: Number | None = Field(default=None, gt=0)
    """Nats per answer that `kl_coef` moves towards, by at most 2 % a step; `null` keeps it fixed."""

    gamma: Number = Field(default=1.0, ge=0, le=1)
    """Discount per token."""

    lam: Number = Field(default=0.95, ge=0, le=1)
    """Lambda of generalised advantage estimation."""

    max_grad_norm: Number = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""

    reference_answers: Count = Field(default=128, ge=2)
    """Answers of the untrained policy scored before step 1 for means, SDs and quantiles."""

    seed: Count = Field(default=0, ge=0)
    """Everything random is derived from it."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> "TrainingConfig":
        if self.minibatches > self.answers_per_step:
            raise PydanticCustomError(
                "disagreement",
                "training.minibatches {minibatches} is more than the {answers} answers of a step "
                "(prompts_per_step x answers_per_prompt)",
                {"key": "minibatches", "minibatches": self.minibatches, "answers": self.answers_per_step},
            )
        if not self.has_critic and self.value != "head":
            raise PydanticCustomError(
                "disagreement",
                "training.algorithm {algorithm} has no critic: leave training.value out, or use ppo",
                {"key": "value", "algorithm": self.algorithm},
            )
        if self.kl_target is not None and self.kl_coef == 0:
            raise PydanticCustomError(
                "disagreement",
                "training.kl_target multiplies training.kl_coef: start from more than 0, such as 0.05",
                {"key": "kl_coef"},
            )
        if not self.has_critic and self.answers_per_prompt < 2:
            raise PydanticCustomError(
                "disagreement",
                "training.algorithm {algorithm} compares answers to the same prompt: "
                "answers_per_prompt must be at least 2",
                {"key": "answers_per_prompt", "algorithm": self.algorithm},
            )
        return self

    @property
    def has_critic(self) -> bool:
        """Whether a value head is fitted."""
        return self.algorithm == "ppo"

    @property
    def answers_per_step(self) -> int:
        """Answers sampled in one step, all processes together."""
        return self.prompts_per_step * self.answers_per_prompt


class CheckpointConfig(_Section):
    """When the state of a run is saved."""

    every: Count = Field(default=10, ge=1)
    """Steps between checkpoints; the last step is always saved."""

    keep: Count = Field(default=2, ge=1)
    """Checkpoints kept; two let a run survive a damaged one."""


class EvaluationConfig(_Section):
    """Evaluations during a run; nothing is trained on them."""

    every: Count = Field(default=10, ge=0)
    """Steps between evaluations; the last step always has one, 0 is none at all."""

    prompts: PathText | None = None
    """A file of prompts that are not trained on; without them the lab's held-out ones for the lab, else
    some of the training prompts."""

    answers: Count = Field(default=64, ge=2)
    """Prompts drawn from the file, each answered once by the policy and once by the reference."""

    should_respond: PathText | None = None
    """A file of prompts a refusal of which is an over-refusal."""

    stop_on: Annotated[tuple[Check, ...], BeforeValidator(_monitors)] = ()
    """Monitors that stop the run when they begin to fire, such as `dead-penalty,saturated`."""


class LoggingConfig(_Section):
    """Where a run's numbers go besides its own files; may change on resume."""

    trackers: Annotated[tuple[TrackerName, ...], BeforeValidator(_listed), AfterValidator(_once)] = ()
    """Any of `tensorboard`, `wandb`, `trackio` and `mlflow`."""


class RunConfig(_Section):
    """Everything a training run is made from."""

    policy: PolicyConfig = PolicyConfig()
    """The language model that is trained."""

    reward: RewardConfig = RewardConfig()
    """The SARM that rewards the policy, and the controls on its reward."""

    data: DataConfig = DataConfig()
    """What the policy is trained on."""

    training: TrainingConfig = TrainingConfig()
    """Proximal policy optimisation, or one of its critic-free relatives."""

    checkpoints: CheckpointConfig = CheckpointConfig()
    """When the state of a run is saved."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """Evaluations during a run; nothing is trained on them."""

    logging: LoggingConfig = LoggingConfig()
    """Where a run's numbers go besides its own files; may change on resume."""

    @model_validator(mode="after")
    def _prompts_fit_the_policy(self) -> "RunConfig":
        if self.policy.model != LAB and "prompts" not in self.data.model_fields_set:
            raise PydanticCustomError(
                "missing", "missing key 'data.prompts'", {"key": "data", "inner": "prompts"}
            )
        return self

    @model_validator(mode="after")
    def _critic_fits_the_policy(self) -> "RunConfig":
        if self.training.value == "adapter" and self.policy.lora is None:
            raise PydanticCustomError(
                "disagreement",
                "training.value: adapter is a second adapter, but policy.lora is null: use head or model",
                {"key": "training", "inner": "value"},
            )
        return self

    @model_validator(mode="after")
    def _human_has_rows(self) -> "RunConfig":
        if self.reward.human_kl is not None and self.data.human is None:
            raise PydanticCustomError(
                "disagreement",
                "reward.human_kl needs demonstrations: set data.human (or --human FILE)",
                {"key": "reward", "inner": "human_kl"},
            )
        return self

    @property
    def evaluation_prompts(self) -> Path | None:
        """The file of evaluation prompts: the one that is named, the lab's own for the lab, else None."""
        if self.evaluation.prompts is not None:
            return self.evaluation.prompts
        lab = self.policy.model == LAB and self.data.prompts == TRAIN_PROMPTS
        return HELD_OUT_PROMPTS if lab else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values with every default spelled out; `RunConfig(**values)` gives it back."""
        return self.model_dump(mode="json")
