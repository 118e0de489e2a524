"""Options that every command with a reward model has, and how it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter, validators

from sarm_control.console import say

if TYPE_CHECKING:
    from sarm_control.sarm import RewardModel

Model = Annotated[str, Parameter(name=["--model", "-m"], help="SARM folder or hub id.")]
Device = Annotated[str | None, Parameter(help="cpu, cuda, cuda:1 or auto. Default: a GPU if there is one.")]
Dtype = Annotated[
    str | None, Parameter(help="float32, bfloat16 or float16 for the trunk. Default: the checkpoint's.")
]
MaxLength = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=4), help="Tokens of a conversation. Default: the trunk's context."
    ),
]
BatchTokens = Annotated[
    int | None,
    Parameter(
        validator=validators.Number(gte=1),
        help="Padded tokens of one forward pass. Changes speed and memory, no result.",
    ),
]


def load_model(model: str, *, device: str | None, dtype: str | None, max_length: int | None) -> "RewardModel":
    """Loads the reward model and says what it is."""
    from sarm_control.sarm import RewardModel

    rm = RewardModel.from_pretrained(model, device=device, dtype=dtype, max_length=max_length)
    kept = f"k = {rm.config.k}" if rm.config.use_topk else "TopK off"
    say(f"{model_name(model)}: {rm.config.latents} latents, {kept}, on {rm.device}")
    return rm


def model_name(model: str) -> str:
    """What outputs call a model: its hub id, or its folder's name without the path of one machine."""
    return Path(model).resolve().name if Path(model).is_dir() else model
