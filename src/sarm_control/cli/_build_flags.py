"""The options of `sarm build`, by what they decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, INPUT, MODEL, RARE_COMPUTE, RARE_INPUT, RARE_OUTPUT
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.build import AutoencoderConfig, Sizes

_AT_LEAST_1 = validators.Number(gte=1)
_AT_LEAST_0 = validators.Number(gte=0)
_ABOVE_0 = validators.Number(gt=0)


@Parameter(name="*")
@dataclass(frozen=True)
class SourceFlags:
    """What a SARM is built from: a language model or an existing SARM, and rows."""

    base: Annotated[
        str | None, Parameter(group=MODEL, help="Causal language model: hub id, folder, or lab.")
    ] = None
    model: Annotated[
        str | None,
        Parameter(group=MODEL, name=["--model", "-m"], help="Existing SARM: only its head is fitted again."),
    ] = None
    pairs: Annotated[
        list[Path] | None,
        Parameter(
            group=INPUT,
            consume_multiple=True,
            help="Preference rows, for the head; their answers train the autoencoder too.",
        ),
    ] = None
    text: Annotated[
        list[Path] | None,
        Parameter(group=INPUT, consume_multiple=True, help="More rows with answers, for the autoencoder."),
    ] = None
    # not `eval`, which is Python's own
    evaluate: Annotated[
        list[Path] | None,
        Parameter(
            group=INPUT,
            name="--eval",
            consume_multiple=True,
            help="Preference rows for figures only, never for building.",
        ),
    ] = None
    validate: Annotated[
        list[Path] | None,
        Parameter(
            group=RARE_INPUT,
            consume_multiple=True,
            help="Preference rows that choose the head's regularisation. Default: cross-validation.",
        ),
    ] = None
    annotator: Annotated[
        str | None,
        Parameter(
            group=RARE_INPUT,
            help="Field of --pairs that names who labelled a row: one reward each in --tune-trunk.",
        ),
    ] = None

    @property
    def files(self) -> list[Path]:
        """Every file that is read, in the order of the manifest."""
        return [
            *(self.text or []),
            *(self.pairs or []),
            *(self.validate or []),
            *(self.evaluate or []),
        ]

    def check(self, sizes: "SizeFlags") -> None:
        """Refuses options that do not go together.

        Raises:
            ConfigError: neither or both of --base and --model, sizes of an existing SARM, or no rows.
        """
        # both would name two trunks, and neither none
        if (self.base is None) == (self.model is None):
            raise ConfigError(
                "give either --base (build everything) or --model (fit a new head)",
                hint="sarm build --base lab --pairs lab:preferences -o DIR",
            )
        if self.model is not None:
            needed = {"--layer": sizes.layer, "--latents": sizes.latents, "--k": sizes.k, "--text": self.text}
            given = [name for name, value in needed.items() if value is not None]
            # refused rather than ignored: who types a size expects it
            if given:
                raise ConfigError(f"{', '.join(given)}: an existing SARM keeps its trunk and autoencoder")
            if not self.pairs:
                raise ConfigError("a new head needs preferences", hint="add --pairs pairs.jsonl")
        elif not (self.pairs or self.text):
            raise ConfigError(
                "--base also needs rows: --pairs, or --text for an autoencoder without a head",
                hint="add --pairs pairs.jsonl",
            )


@Parameter(name="*")
@dataclass(frozen=True)
class SizeFlags:
    """How large the SARM is; what is not given is chosen from the model and the number of answers."""

    layer: Annotated[
        int | None,
        Parameter(
            group=COMPUTE,
            validator=_AT_LEAST_1,
            help="Decoder layers to keep in the trunk. Default: half of the model's.",
        ),
    ] = None
    latents: Annotated[
        int | None,
        Parameter(
            group=COMPUTE,
            validator=_AT_LEAST_1,
            help="Latents of the autoencoder. Default: by the number of answers.",
        ),
    ] = None
    k: Annotated[
        int | None,
        Parameter(
            group=COMPUTE,
            validator=_AT_LEAST_1,
            help="Latents kept for each answer. Default: by latents and model.",
        ),
    ] = None

    def check(self) -> None:
        """Refuses sizes that no model could have.

        Raises:
            ConfigError: more latents are to be kept than there are.
        """
        if self.k is not None and self.latents is not None and self.k > self.latents:
            raise ConfigError(f"k is {self.k}, it must be in 1..{self.latents} (the latents)")


@Parameter(name="*")
@dataclass(frozen=True)
class FitFlags:
    """How autoencoder and head are fitted."""

    steps: Annotated[
        int,
        Parameter(group=RARE_COMPUTE, validator=_AT_LEAST_1, help="Training steps of the autoencoder."),
    ] = 2000
    batch: Annotated[int, Parameter(group=RARE_COMPUTE, validator=_AT_LEAST_1, help="States of a step.")] = (
        1024
    )
    learning_rate: Annotated[
        float | None, Parameter(group=RARE_COMPUTE, validator=_ABOVE_0, help="Of the autoencoder.")
    ] = None
    sentence_states: Annotated[
        bool,
        Parameter(group=RARE_COMPUTE, help="Train the autoencoder on the states at sentence ends too."),
    ] = True
    end_of_turn_share: Annotated[
        float | None,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0, lte=1),
            help="Share of a batch that is end-of-turn states; the rest are sentence ends.",
        ),
    ] = None
    holdout: Annotated[
        float,
        Parameter(
            group=RARE_COMPUTE,
            validator=validators.Number(gt=0, lt=1),
            help="Share of prompts kept out of every fit.",
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

    def autoencoder(self, sizes: "Sizes") -> "AutoencoderConfig":
        """These and the sizes as the library takes them."""
        from sarm_control.build import AutoencoderConfig

        schedule: dict[str, Any] = {
            "learning_rate": self.learning_rate,
            "end_of_turn_share": self.end_of_turn_share,
        }
        # what nobody said is left to the library, which has its own defaults for them
        given = {name: value for name, value in schedule.items() if value is not None}
        return AutoencoderConfig(
            sizes.latents, sizes.k, steps=self.steps, batch=self.batch, seed=self.seed, **given
        )


@Parameter(name="*")
@dataclass(frozen=True)
class TuningFlags:
    """Whether and how the trunk is tuned."""

    tune_trunk: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=_AT_LEAST_0,
            help="Epochs of tuning the trunk on the pairs first.",
        ),
    ] = 0
    tune_after: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=_AT_LEAST_0,
            help="Epochs of tuning trunk and head, autoencoder frozen.",
        ),
    ] = 0
    tune: Annotated[
        Literal["lora", "full"], Parameter(group=RARE_COMPUTE, help="How the trunk is tuned.")
    ] = "lora"
    tune_rows: Annotated[
        int,
        Parameter(
            group=RARE_COMPUTE,
            validator=_AT_LEAST_1,
            help="Preference rows of a step of tuning the trunk.",
        ),
    ] = 8
    tune_learning_rate: Annotated[
        float | None,
        Parameter(
            group=RARE_COMPUTE,
            validator=_ABOVE_0,
            help="Of the trunk. Default: 1e-4 for lora, 1e-5 for full.",
        ),
    ] = None
