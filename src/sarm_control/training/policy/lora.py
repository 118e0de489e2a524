"""LoRA adapters through peft: adding, switching, merging and saving them."""

import contextlib
import copy
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sarm_control.errors import ConfigError, MissingExtraError, ModelError
from sarm_control.extras import install
from sarm_control.training.config.run_config import LoraConfig
from sarm_control.training.policy.adapter_files import WEIGHTS, SavedAdapter

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig
    from transformers import PreTrainedModel

POLICY, CRITIC, START = "default", "critic", "start"
_EMBEDDINGS = "the embeddings or the language-modelling head"


def add_adapters(base: "PreTrainedModel", config: LoraConfig, seed: int) -> Any:
    """The model with float32 adapters, the only weights that are trained; at first they add nothing.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: a target that is not the name of a linear module.
    """
    peft = _peft()
    with _seeded(base, config, seed):
        return _without_casts(peft.get_peft_model(base, _settings(config, "CAUSAL_LM")))


def merge_adapter(base: "PreTrainedModel", saved: SavedAdapter) -> "PreTrainedModel":
    """The base with an adapter added to its weights, every one of which can be trained again.

    The sums are taken in float32 and rounded once to the base's type. On the meta device only names and
    shapes are checked.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: an adapter that is not one of this base, or a base whose weights it cannot be added to.
    """
    model = _attached(base, saved)
    if getattr(base.config, "tie_word_embeddings", False) and _adapts_embeddings(model):
        raise ModelError(
            f"{saved.name} adapts {_EMBEDDINGS}, which are one tensor in its base: it cannot be merged",
            hint="give a policy that is merged already",
        )
    with torch.no_grad():
        for layer in _adapter_layers(model):
            weight = layer.base_layer.weight
            if weight.is_meta:
                continue
            if not weight.is_floating_point():
                raise ModelError(
                    f"{saved.name} cannot be merged into the quantised weights of its base",
                    hint="name a base in bfloat16 or float32 in adapter_config.json",
                )
            weight.data = (weight.data.float() + layer.get_delta_weight(POLICY)).to(weight.dtype)
    merged: PreTrainedModel = model.unload()
    # older versions of peft leave their settings on the model, which then seems adapted still
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    # peft froze them
    return merged.requires_grad_(True)


def continue_adapter(base: "PreTrainedModel", saved: SavedAdapter) -> Any:
    """The model with an adapter that is trained on, and a frozen copy of it: where the policy starts.

    Raises:
        MissingExtraError: peft is not installed.
        ModelError: an adapter that is not one of this base, or that cannot be trained here.
    """
    model = _attached(base, saved)
    if _adapts_embeddings(model):
        raise ModelError(
            f"{saved.name} adapts {_EMBEDDINGS}, which are not trained here",
            hint="set policy.adapter: merge",
        )
    # peft draws first weights, which are overwritten below: the global generator must not move
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_adapter(START, copy.deepcopy(model.peft_config[POLICY]))
    trained = adapter_weights(model, POLICY)
    with torch.no_grad():
        for name, weight in adapter_weights(model, START).items():
            weight.requires_grad_(False)
            source = trained[name.replace(f".{START}.", f".{POLICY}.")]
            if not source.is_meta:
                weight.copy_(source)
    for weight in trained.values():
        weight.requires_grad_(True)
    return _without_casts(model)


def add_critic_adapter(model: Any, config: LoraConfig, seed: int) -> None:
    """Adds a second adapter to the same base; the first one stays active, and both are trained."""
    with _seeded(model, config, seed):
        model.add_adapter(CRITIC, _settings(config, "CAUSAL_LM"))
    _without_casts(model)
    for weight in adapter_weights(model).values():
        weight.requires_grad_(True)


def inject_adapter(model: "PreTrainedModel", config: LoraConfig, seed: int) -> None:
    """Adds float32 adapters to a decoder without a language-modelling head; all other weights are frozen."""
    peft = _peft()
    with _seeded(model, config, seed):
        peft.inject_adapter_in_model(_settings(config, None), model, adapter_name=CRITIC)
    for weight in adapter_weights(model).values():
        weight.data = weight.data.float()
    _without_casts(model)


def adapter_weights(model: Any, name: str = CRITIC) -> dict[str, torch.nn.Parameter]:
    """The weights of one adapter, by their names in the model."""
    return {key: weight for key, weight in model.named_parameters() if f".{name}." in key and "lora_" in key}


@contextlib.contextmanager
def active_adapter(model: Any, name: str | None = CRITIC) -> Iterator[None]:
    """Inside the block another adapter is active, or none; the set of trained weights stays the same.

    peft's own switches freeze the adapter that they switch off. The backward pass comes after the block, and
    a weight frozen by then would get no gradient. So the layers' private fields are set here instead.
    """
    layers = _adapter_layers(model)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._disable_adapters = name is None
        layer._active_adapter = layer._active_adapter if name is None else [name]
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


def recompute_layers(model: Any) -> None:
    """Switches gradient checkpointing on; a layer is recomputed under the adapter that was active."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        layers = _adapter_layers(model)
        name = layers[0].active_adapters[0] if layers else POLICY
        return contextlib.nullcontext(), active_adapter(model, name)

    # Renamed in transformers 5; the old name warns.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": contexts})


@contextlib.contextmanager
def few_rows(model: Any) -> Iterator[None]:
    """Inside the block adapters are computed in the way that suits passes of a few rows without gradients."""
    layers = _adapter_layers(model)
    for layer in layers:
        layer.few_rows = True
    try:
        yield
    finally:
        for layer in layers:
            layer.few_rows = False


@contextlib.contextmanager
def merged_adapters(model: Any) -> Iterator[None]:
    """Inside the block the active adapter is added to its weights; afterwards the old tensors are put back.

    For passes without gradients. It costs one product of the adapter's rank, and the memory of the weights.
    """
    layers = [layer for layer in _adapter_layers(model) if _mergeable(layer)]
    kept = [
        (layer.base_layer.weight, layer.base_layer.weight.data, layer._disable_adapters) for layer in layers
    ]
    try:
        for layer, (weight, data, _) in zip(layers, kept, strict=True):
            # a new tensor is put in place of the data, so the old bits need not be recomputed afterwards
            weight.data = _merged_weight(layer, layer.active_adapters[0]).to(data.dtype)
            layer._disable_adapters = True
        yield
    finally:
        for layer, (weight, data, disabled) in zip(layers, kept, strict=True):
            weight.data, layer._disable_adapters = data, disabled


def merged_linears(model: Any, name: str | None = None) -> dict[torch.nn.Linear, Callable[[], Tensor]] | None:
    """For each linear layer under an adapter, what gives its float32 weight with the adapter added.

    Args:
        model: with adapters, or none.
        name: of the adapter; the active one where None.

    Returns:
        None where some adapter is not a plain sum: of several adapters, say.
    """
    found: dict[torch.nn.Linear, Callable[[], Tensor]] = {}
    for layer in _adapter_layers(model):
        if not _mergeable(layer) or (name is not None and name not in layer.lora_A):
            return None
        found[layer.base_layer] = partial(_merged_weight, layer, name or layer.active_adapters[0])
    return found


def own_linears(model: Any) -> list[torch.nn.Linear]:
    """The linear layers of a model that are no part of an adapter."""
    adapters = {id(part) for layer in _adapter_layers(model) for part in _parts_of(layer)}
    linear = (part for part in model.modules() if isinstance(part, torch.nn.Linear))
    return [part for part in linear if id(part) not in adapters]


def _parts_of(layer: Any) -> Iterator[torch.nn.Module]:
    for held in ("lora_A", "lora_B"):
        yield from getattr(layer, held, torch.nn.ModuleDict()).values()


def _merged_weight(layer: Any, name: str) -> Tensor:
    # out of place: a float32 weight is the layer's own
    merged: Tensor = layer.get_delta_weight(name).detach().float() + layer.base_layer.weight.detach()
    return merged


def _mergeable(layer: Any) -> bool:
    active = [name for name in layer.active_adapters if name in getattr(layer, "lora_A", ())]
    plain = isinstance(layer.base_layer, torch.nn.Linear)
    return plain and len(active) == 1 and not (layer.disable_adapters or layer.merged)


def _adapter_layers(model: Any) -> list[Any]:
    return [part for part in model.modules() if hasattr(part, "_disable_adapters")]


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            "LoRA needs the package peft",
            hint=f"{install('rl')}, or train every weight with policy.lora: null",
        ) from error
    return peft


def _settings(config: LoraConfig, task_type: str | None) -> "PeftConfig":
    import peft

    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=0.0,
        target_modules=config.targets if isinstance(config.targets, str) else list(config.targets),
        task_type=task_type,
    )
    return _customised(settings)


def _customised(settings: "PeftConfig") -> "PeftConfig":
    from sarm_control.training.policy.lora_linear import FusedLoraLinear

    # peft's documented way to replace its layer class.
    settings._register_custom_module({torch.nn.Linear: FusedLoraLinear})
    return settings


def _attached(base: "PreTrainedModel", saved: SavedAdapter) -> Any:
    """The base as a peft model whose active adapter has the float32 weights of the file.

    Raises:
        ModelError: the file's tensors are not exactly those that the settings give on this base.
    """
    peft = _peft()
    from safetensors import SafetensorError, safe_open

    # as in `continue_adapter`: the drawn weights are replaced by the file's
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = _customised(peft.LoraConfig(**saved.settings, task_type="CAUSAL_LM"))
        try:
            model = peft.get_peft_model(base, settings)
        except (ValueError, TypeError, RuntimeError, re.error) as error:
            raise _no_fit(saved, str(error).strip().split("\n")[0][:200]) from error
    weights = {
        name.replace(f".{POLICY}.", ".").removesuffix(f".{POLICY}"): weight
        for name, weight in model.named_parameters()
        if "lora_" in name
    }
    try:
        with safe_open(saved.weights, "pt") as stored:
            _same_tensors(saved, {name: tuple(weight.shape) for name, weight in weights.items()}, stored)
            with torch.no_grad():
                for name, weight in weights.items():
                    # a skeleton has no memory to copy to
                    if not weight.is_meta:
                        weight.copy_(stored.get_tensor(name))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{saved.name}: {WEIGHTS} cannot be read: {error}", hint="copy or download the adapter again"
        ) from error
    return _without_casts(model)


def _same_tensors(saved: SavedAdapter, expected: dict[str, tuple[int, ...]], stored: Any) -> None:
    found = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    for kind, names in (
        ("lacks", expected.keys() - found.keys()),
        ("also holds", found.keys() - expected.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise _no_fit(saved, f"{WEIGHTS} {kind} {min(names)}{more}")
    for name, shape in expected.items():
        if found[name] != shape:
            raise _no_fit(saved, f"{name} has the shape {found[name]}, not {shape}")


def _no_fit(saved: SavedAdapter, why: str) -> ModelError:
    return ModelError(
        f"the adapter {saved.name} does not fit its base: {why}",
        hint="correct base_model_name_or_path in adapter_config.json, or merge the adapter with peft and "
        "give the merged model",
    )


def _adapts_embeddings(model: Any) -> bool:
    causal = model.get_base_model()
    ends = (causal.get_input_embeddings(), causal.get_output_embeddings())
    return any(hasattr(part, "base_layer") for part in ends)


@contextlib.contextmanager
def _seeded(model: Any, config: LoraConfig, seed: int) -> Iterator[None]:
    """Draws the adapters' initial weights from the seed, and explains targets that do not fit the model."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft warns about tied embeddings, which are no target here, and uses names transformers renamed.
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        try:
            yield
        except ValueError as error:
            parts = model.named_modules()
            linear = {name.rsplit(".", 1)[-1] for name, part in parts if isinstance(part, torch.nn.Linear)}
            raise ConfigError(
                f"policy.lora.targets {config.targets!r} do not fit this model",
                hint=f"its linear modules are {', '.join(sorted(linear))}; or use all-linear",
            ) from error


def _without_casts(model: Any) -> Any:
    """Switches off peft's cast of every input to float32 and back, which takes half the time of a pass."""
    for part in model.modules():
        if hasattr(part, "cast_input_dtype_enabled"):
            part.cast_input_dtype_enabled = part.weight.dtype == torch.float32
    return model


@contextlib.contextmanager
def merged_weights(model: Any) -> Iterator["PreTrainedModel"]:
    """A copy of the plain model with the adapters added to its weights; a model without adapters is itself.

    The sum is taken in float32 and rounded once to the model's own dtype.
    """
    if not hasattr(model, "merge_and_unload"):
        yield model
        return
    dtype = model.get_base_model().dtype
    # in float32, since adding adapters to bfloat16 weights would round twice
    merged = copy.deepcopy(model).float().merge_and_unload(adapter_names=[POLICY])
    yield merged.to(dtype)


def save_adapter(model: Any, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors`; a critic's adapter is not written."""
    model.save_pretrained(folder, save_embedding_layers=False, selected_adapters=[POLICY])
