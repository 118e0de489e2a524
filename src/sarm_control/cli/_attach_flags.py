"""The options of `sarm attach`, by what they decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, MODEL, RARE_COMPUTE, RARE_OUTPUT
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.attaching import AttachConfig

_AT_LEAST_1 = validators.Number(gte=1)
_AT_LEAST_0 = validators.Number(gte=0)


@Parameter(name="*")
@dataclass(frozen=True)
class AttachInputs:
    """The reward model, the rows, and a ready-made dictionary."""

    model: Annotated[
        str | None,
        Parameter(
            group=MODEL, name=["--model", "-m"], help="Reward model with a linear head: hub id or folder."
        ),
    ] = None
    text: Annotated[
        list[Path] | None,
        Parameter(group=INPUT, consume_multiple=True, help="Rows with answers, for the dictionary."),
    ] = None
    pairs: Annotated[
        list[Path] | None,
        Parameter(
            group=INPUT,
            consume_multiple=True,
            help="Preference rows: their answers are texts too, and margins are measured on them.",
        ),
    ] = None
    # not `eval`, which is Python's own
    evaluate: Annotated[
        list[Path] | None,
        Parameter(
            group=INPUT,
            name="--eval",
            consume_multiple=True,
            help="Preference rows of another benchmark, for figures alone.",
        ),
    ] = None

    autoencoder: Annotated[
        Path | None,
        Parameter(
            group=INPUT,
            help="A ready-made dictionary instead of a trained one: folder or file of SAELens, Gemma Scope, "
            "Llama Scope or Qwen-Scope.",
        ),
    ] = None

    @property
    def files(self) -> list[Path]:
        """Every file that is read, in the order of the manifest."""
        return [*(self.text or []), *(self.pairs or []), *(self.evaluate or [])]

    def check(self) -> str:
        """The reward model.

        Raises:
            ConfigError: none, or no rows.
        """
        if self.model is None:
            raise ConfigError(
                "attach needs a reward model with a linear head",
                hint="sarm attach --model MODEL --text texts.jsonl -o DIR",
            )
        if not (self.text or self.pairs):
            raise ConfigError(
                "attach needs rows with answers: --text, or --pairs", hint="add --text texts.jsonl"
            )
        # here already: it is read after the reward model is loaded, which may take minutes
        if self.autoencoder is not None and not self.autoencoder.exists():
            raise ConfigError(
                f"{self.autoencoder} does not exist", hint="give a folder or a file on this disk"
            )
        return self.model


@Parameter(name="*")
@dataclass(frozen=True)
class DictionaryFlags:
    """How large the dictionary is and how it is trained."""

    latents: Annotated[
        int | None,
        Parameter(group=COMPUTE, validator=_AT_LEAST_1, help="Latents. Default: by the number of answers."),
    ] = None
    k: Annotated[
        int | None,
        Parameter(
            group=COMPUTE,
            validator=_AT_LEAST_1,
            help="Latents kept for each state. Default: by latents and model.",
        ),
    ] = None
    compare: Annotated[
        bool,
        Parameter(
            group=COMPUTE,
            negative="",
            help="Also train on the plain squared error, with each other --sparsity, and whitened, for the "
            "table: five trainings instead of one.",
        ),
    ] = False
    seeds: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=_AT_LEAST_1,
            help="Dictionaries trained, to see whether latents are found again; the first is attached.",
        ),
    ] = 1
    force: Annotated[
        bool,
        Parameter(
            group=RARE_COMPUTE,
            negative="",
            help="Attach a dictionary that explains less than half of the reward or is its direction.",
        ),
    ] = False
    steps: Annotated[int, Parameter(group=RARE_COMPUTE, validator=_AT_LEAST_1, help="Training steps.")] = 2000
    batch: Annotated[int, Parameter(group=RARE_COMPUTE, validator=_AT_LEAST_1, help="States of a step.")] = (
        1024
    )
    learning_rate: Annotated[
        float, Parameter(group=RARE_COMPUTE, validator=validators.Number(gt=0), help="Of Adam.")
    ] = 1e-3
    reward_weight: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=_AT_LEAST_0,
            help="Of the loss term for the reward, beside the mean squared error; 0 leaves it out.",
        ),
    ] = 3.0
    ramp: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=0, lte=1),
            help="Share of the steps over which that weight rises from 0.",
        ),
    ] = 0.5
    sparsity: Annotated[
        Literal["topk", "batch-topk", "matryoshka"],
        Parameter(
            group=RARE_COMPUTE,
            help="k latents of every state, k on average, or the latter with nested groups of latents.",
        ),
    ] = "topk"
    whitening: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gte=0, lte=1),
            help="How far directions of the state are made to vary alike for the training: 0 not, 1 wholly.",
        ),
    ] = 0.0
    other_states: Annotated[
        bool,
        Parameter(
            group=RARE_COMPUTE,
            help="Also train on states at the ends of sentences and of earlier turns.",
        ),
    ] = True
    pooled_share: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0, lte=1),
            help="Share of a batch that is states where the reward is read; the rest are the others.",
        ),
    ] = 0.5
    holdout: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0, lt=1),
            help="Share of prompts kept out of the training.",
        ),
    ] = 0.15
    seed: Annotated[
        int, Parameter(group=RARE_COMPUTE, validator=_AT_LEAST_0, help="Of everything random.")
    ] = 0
    cache: Annotated[
        Path | None,
        Parameter(
            group=RARE_OUTPUT, help="Folder for states. Default: sarm-control/states in the user's cache."
        ),
    ] = None

    def config(self, batch_tokens: int | None) -> "AttachConfig":
        """These as the library takes them.

        Raises:
            ConfigError: they do not go together.
        """
        from sarm_control.attaching import AttachConfig

        return AttachConfig(
            latents=self.latents,
            k=self.k,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            pooled_share=self.pooled_share,
            reward_weight=self.reward_weight,
            ramp=self.ramp,
            sparsity=self.sparsity,
            whitening=self.whitening,
            others=self.other_states,
            holdout=self.holdout,
            compare=self.compare,
            seeds=self.seeds,
            force=self.force,
            batch_tokens=batch_tokens,
            seed=self.seed,
        )
