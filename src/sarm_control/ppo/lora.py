"""LoRA adapters through peft: put on, merged for saving, saved on their own."""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sarm_control.errors import ConfigError, MissingExtraError
from sarm_control.ppo.config import LoraConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(base: "PreTrainedModel", config: LoraConfig, seed: int) -> Any:
    """The model with float32 adapters, the only weights that are trained; they change nothing at first.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: a target that is not the name of a linear module.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            "LoRA needs the package peft",
            hint="pip install 'sarm-control[rl]', or train every weight with policy.lora: null",
        ) from error
    targets = config.targets if isinstance(config.targets, str) else list(config.targets)
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft warns of tied embeddings, which we do not target, and uses names transformers renamed.
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            return _without_casts(peft.get_peft_model(base, settings))
        except ValueError as error:
            parts = base.named_modules()
            linear = {name.rsplit(".", 1)[-1] for name, part in parts if isinstance(part, torch.nn.Linear)}
            raise ConfigError(
                f"policy.lora.targets {targets!r} do not fit this model",
                hint=f"its linear modules are {', '.join(sorted(linear))}; or use all-linear",
            ) from error


def _without_casts(model: Any) -> Any:
    """Under autocast peft's own cast of every input to float32 and back would take half the time."""
    for part in model.modules():
        if hasattr(part, "cast_input_dtype_enabled"):
            part.cast_input_dtype_enabled = part.weight.dtype == torch.float32
    return model


@contextlib.contextmanager
def merged_weights(model: Any) -> Iterator["PreTrainedModel"]:
    """The plain model with adapters added to its weights, on a copy; a model without adapters is itself.

    The sum is taken in float32 and rounded once to the model's own dtype.
    """
    if not hasattr(model, "merge_and_unload"):
        yield model
        return
    dtype = model.get_base_model().dtype
    merged = copy.deepcopy(model).float().merge_and_unload()
    yield merged.to(dtype)


def save_adapter(model: Any, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`."""
    model.save_pretrained(folder, save_embedding_layers=False)
