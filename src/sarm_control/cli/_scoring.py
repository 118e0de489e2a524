"""Options that every command with a reward model has, how it is loaded, and what stands in for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from sarm_control.cli._help import MODEL, RARE_INPUT, RARE_MODEL
from sarm_control.console import say
from sarm_control.embedded import LAB

if TYPE_CHECKING:
    from sarm_control.reward_model import RewardModel

Model = Annotated[
    str | None,
    Parameter(
        group=MODEL,
        name=["--model", "-m"],
        help="Reward model: folder or hub id. Default: lab, the SARM of the embedded world.",
    ),
]
Device = Annotated[
    str | None, Parameter(group=MODEL, help="cpu, cuda, cuda:1 or auto. Default: a GPU if there is one.")
]
Dtype = Annotated[
    str | None,
    Parameter(
        group=RARE_MODEL, help="float32, bfloat16 or float16 for the trunk. Default: the checkpoint's."
    ),
]
MaxLength = Annotated[
    int | None,
    Parameter(
        group=RARE_MODEL,
        validator=validators.Number(gte=4),
        help="Tokens of a conversation. Default: the trunk's context.",
    ),
]
TemplateDate = Annotated[
    str | None,
    Parameter(
        group=RARE_MODEL,
        help="Day that a chat template which writes the date is told: today, or a day such as 2026-01-31. "
        "Default: the day the model was built with, else the template's own, else 2024-07-26.",
    ),
]
BatchTokens = Annotated[
    int | None,
    Parameter(
        group=RARE_MODEL,
        validator=validators.Number(gte=1),
        help="Padded tokens of one forward pass. Changes speed and memory, no result.",
    ),
]


@dataclass(frozen=True)
class Reading:
    """How a reward model with a linear head of its own is read; a SARM needs none of it."""

    pooling: Annotated[
        str | None,
        Parameter(
            group=RARE_MODEL,
            help="Token a classifier is read at: last_token, end_of_turn, last_not_pad or token:ID. "
            "Default: as its authors do.",
        ),
    ] = None
    output: Annotated[
        str | None,
        Parameter(
            group=RARE_MODEL,
            help="Output of a classifier that is the reward: 0, 1, ... or difference, of two.",
        ),
    ] = None


Read = Annotated[Reading | None, Parameter(name="*")]
"""Flags of their own, without a name before them."""

SkipBadRows = Annotated[
    Path | None,
    Parameter(
        group=RARE_INPUT, help="Folder for the rows that cannot be used; without it they stop the command."
    ),
]


def load_model(
    model: str,
    *,
    device: str | None,
    dtype: str | None,
    max_length: int | None,
    template_date: str | None = None,
    reading: Reading | None = None,
) -> "RewardModel":
    """Loads the reward model and says what it is."""
    from sarm_control.reward_model import RewardModel

    read = reading or Reading()
    rm = RewardModel.from_pretrained(
        model,
        device=device,
        dtype=dtype,
        max_length=max_length,
        template_date=template_date,
        pooling=read.pooling,
        output=read.output,
    )
    kept = f"k = {rm.config.k}" if rm.config.use_topk else "TopK off"
    held = f"{rm.config.latents} latents, {kept}" if rm.config.latents else "no dictionary, no latents"
    day = f", told that it is {rm.template.date}" if rm.template.date else ""
    say(f"{model_name(model)}: {held}, on {rm.device}{day}")
    return rm


def check_has_latents(model: str, needs: str) -> None:
    """Refuses a reward model without a dictionary, by its files.

    Args:
        model: folder or hub id.
        needs: what cannot be done without latents, as the beginning of a sentence.

    Raises:
        ModelError: it has none.
    """
    from sarm_control.reward_model import find_folder, latents_of, no_latents

    if not latents_of(find_folder(model), model):
        raise no_latents(needs)


def model_name(model: str) -> str:
    """What outputs call a model: its hub id, or its folder's name without the path of one machine.

    `lab` is the embedded world; a folder of that name is called `./lab`.
    """
    if model == LAB or not Path(model).is_dir():
        return model
    name = Path(model).resolve().name
    return f"./{name}" if name == LAB else name


def or_lab(model: str | None, *also_missing: str) -> str:
    """The model that was asked for, or `lab`; says what the embedded world stands in for."""
    say_stand_in([*(["--model"] if model is None else []), *also_missing])
    return LAB if model is None else model


def say_stand_in(missing: Sequence[str]) -> None:
    """One remark when something was not given and the embedded world is used for it."""
    if missing:
        named = " or ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        say(f"no {named} given: the embedded lab, a tiny world for trying things out")
