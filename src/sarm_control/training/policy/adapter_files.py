"""Adapter folders as policies: which base they are for, and what their files say.

A LoRA adapter as peft writes it is `adapter_config.json` and `adapter_model.safetensors`. It is small, since
the weights that it changes stay with the base model that it names. The base may be an adapter too: a run that
started from an adapter writes one that names it. Everything here is read from JSON; no weights are read, and
fields that would change what the adapter computes in a way not known here are refused by name.
"""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sarm_control.bounded_json import read_json_object, shown
from sarm_control.embedded import model_folder
from sarm_control.errors import ConfigError, ModelError
from sarm_control.training.config.run_config import LoraConfig, PolicyConfig

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_MOST_BASES = 16
_LARGEST_RANK = 4096
_TOKENIZER = ("tokenizer_config.json", "tokenizer.json")
# What peft notes down but does not compute with once an adapter is trained, or only with another field that
# is refused.
_NO_MATTER = frozenset(
    {
        "task_type",
        "peft_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "ensure_weight_tying",
    }
)
_KEPT = frozenset(
    {
        "r",
        "lora_alpha",
        "target_modules",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
        "layers_to_transform",
        "layers_pattern",
        "exclude_modules",
    }
)
# These draw the first weights of the adapter and leave those of the base alone.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
_WORDS = {
    "use_dora": "DoRA",
    "modules_to_save": "whole modules beside the adapters",
    "trainable_token_indices": "trained tokens",
}


class SavedAdapter(NamedTuple):
    """A LoRA adapter on disk, its settings checked.

    Args:
        name: what it was called: a folder or hub id.
        folder: where its files lie.
        settings: arguments of `peft.LoraConfig`, those that are not at rest.
    """

    name: str
    folder: Path
    settings: dict[str, Any]

    @property
    def weights(self) -> Path:
        """Its safetensors file."""
        return self.folder / WEIGHTS

    def check_continues(self, lora: LoraConfig) -> None:
        """Refuses settings of the run that are not those of the adapter; unset ones are the adapter's.

        Raises:
            ConfigError: naming the first that differs.
        """
        own = {
            "rank": self.settings["r"],
            "alpha": self.settings["lora_alpha"],
            "targets": self.settings["target_modules"],
        }
        for field in ("rank", "alpha", "targets"):
            asked = getattr(lora, field)
            if field in lora.model_fields_set and _comparable(asked) != _comparable(own[field]):
                raise ConfigError(
                    f"policy.lora.{field} is {asked!r}, but the adapter {self.name} that is continued has "
                    f"{own[field]!r}",
                    hint=f"leave policy.lora.{field} out, or merge the adapter and train a new one: "
                    "policy.adapter: merge",
                )


class PolicySource(NamedTuple):
    """Where a policy's weights come from.

    Args:
        base: folder or hub id of the whole model.
        base_name: what an adapter calls that model.
        adapters: those on top of it, the innermost first; none where `policy.model` is a whole model.
        tokenizer: folder or hub id of the tokenizer.
    """

    base: str
    base_name: str
    adapters: tuple[SavedAdapter, ...]
    tokenizer: str

    def split(self, config: PolicyConfig) -> tuple[tuple[SavedAdapter, ...], SavedAdapter | None]:
        """The adapters that are merged into the base, and the one that is trained on.

        Raises:
            ConfigError: a policy that cannot be continued, or not with these settings.
        """
        if config.adapter == "merge":
            return self.adapters, None
        if not self.adapters:
            raise ConfigError(
                f"policy.adapter: continue trains an adapter on, but {config.model} is a whole model",
                hint="leave policy.adapter out, or give the folder of an adapter as policy.model",
            )
        *merged, last = self.adapters
        if config.lora is not None:
            last.check_continues(config.lora)
        return tuple(merged), last

    @contextlib.contextmanager
    def naming_base(self, place: str) -> Iterator[None]:
        """Says of an error inside the block that it is about the base of an adapter, where it is.

        Args:
            place: what is read inside.

        Raises:
            ModelError: the error, with the adapter's name.
        """
        try:
            yield
        except ModelError as error:
            if not self.adapters or place != self.base:
                raise
            missing = f"put the base there, or correct base_model_name_or_path in {SETTINGS}"
            raise ModelError(
                f"the adapter {self.adapters[0].name} needs its base {self.base_name}: {error}",
                hint=error.hint if Path(place).is_dir() else missing,
            ) from error

    def recorded_base(self, config: PolicyConfig) -> str:
        """The base that an adapter written by the run names."""
        return config.model if config.adapter == "merge" else self.adapted_name

    @property
    def adapted_name(self) -> str:
        """What the outermost adapter is for: another adapter, or the whole model."""
        return self.adapters[-2].name if len(self.adapters) > 1 else self.base_name


def policy_source(name: str, *, local_files_only: bool = False, download: bool = True) -> PolicySource:
    """Finds the base and the adapters of a policy by hub id, folder or "lab".

    Args:
        name: `policy.model`, a whole model or an adapter.
        local_files_only: take hub ids from the local cache alone.
        download: whether hub ids are looked up; without it each is taken for a whole model.

    Raises:
        ModelError: an adapter without usable files, of a kind not known here, or whose base is not there.
    """
    adapters: list[SavedAdapter] = []
    tokenizer, place = None, str(model_folder(name, "policy") or name)
    while (folder := _adapter_folder(place, local_files_only, download)) is not None:
        if len(adapters) == _MOST_BASES or folder.resolve() in {a.folder.resolve() for a in adapters}:
            raise ModelError(
                f"{adapters[-1].name}: its base is an adapter on an adapter, without end",
                hint=f"correct base_model_name_or_path in its {SETTINGS}",
            )
        raw = _read(folder, name)
        adapters.append(SavedAdapter(name, folder, _settings(raw, name)))
        if tokenizer is None and any((folder / file).is_file() for file in _TOKENIZER):
            tokenizer = str(folder)
        name, place = _base_of(raw, folder, name)
        if download and raw.get("revision") not in (None, "main") and not Path(place).is_dir():
            place = _at_revision(place, raw["revision"], local_files_only)
    return PolicySource(place, name, tuple(reversed(adapters)), tokenizer or place)


def checked_source(config: PolicyConfig) -> PolicySource:
    """What can be said about a policy without a download, after all checks of its adapters' settings.

    Raises:
        ModelError: see `policy_source`.
        ConfigError: see `PolicySource.split`.
    """
    source = policy_source(config.model, download=False)
    # of a hub id it is not known whether it is an adapter
    if source.adapters or Path(source.base).is_dir():
        source.split(config)
    return source


def _comparable(value: Any) -> Any:
    # names of modules have no order
    return value if isinstance(value, str | int | float) else frozenset(value)


def _adapter_folder(place: str, local_files_only: bool, download: bool) -> Path | None:
    folder = Path(place)
    if folder.is_dir():
        is_adapter = (folder / SETTINGS).exists() and not _has_model(folder)
        return folder if is_adapter else None
    return _on_hub(place, local_files_only) if download and _HUB_ID.fullmatch(place) else None


def _has_model(folder: Path) -> bool:
    """Whether the weights of a whole model lie in a folder; a `config.json` alone is not enough."""
    names = [
        path.name
        for pattern in ("*.safetensors", "*.safetensors.index.json")
        for path in folder.glob(pattern)
    ]
    return any(not name.startswith("adapter") for name in names)


def _on_hub(hub_id: str, local_files_only: bool) -> Path | None:
    """The downloaded folder of an adapter; None for a whole model and where nothing can be found out."""
    if not _hub_file(hub_id, SETTINGS, local_files_only) or _hub_file(
        hub_id, "config.json", local_files_only
    ):
        return None
    from sarm_control.reward_model import base_folder

    return base_folder(hub_id, local_files_only=local_files_only)


def _hub_file(hub_id: str, file: str, local_files_only: bool) -> bool:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    # whatever the hub says against the id is said again, in full, when the model is loaded
    with contextlib.suppress(HfHubHTTPError, OSError, ValueError):
        hf_hub_download(hub_id, file, local_files_only=local_files_only)
        return True
    return False


def _at_revision(hub_id: str, revision: Any, local_files_only: bool) -> str:
    from sarm_control.reward_model import base_folder

    return str(base_folder(hub_id, revision=str(revision), local_files_only=local_files_only))


def _read(folder: Path, name: str) -> dict[str, Any]:
    raw = read_json_object(folder / SETTINGS, error=ModelError)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise ModelError(
            f"{name}: an adapter of the type {shown(kind)}, only LORA is known here",
            hint="merge it into its base with peft, and give the merged model as policy.model",
        )
    task = raw.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{name}: an adapter for {shown(task)}, a policy is a causal language model (CAUSAL_LM)",
            hint="give an adapter that was trained to write answers",
        )
    if not (folder / WEIGHTS).is_file():
        pickle = (folder / "adapter_model.bin").exists()
        raise ModelError(
            f"{name} holds adapter_model.bin, a pickle, which is never loaded because it can run code"
            if pickle
            else f"{name} holds {SETTINGS} but no {WEIGHTS}",
            hint="where you trust it, load it with peft and save it again: save_pretrained writes safetensors"
            if pickle
            else "put the adapter's weights beside its settings",
        )
    return raw


def _settings(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """The settings that peft computes with.

    Raises:
        ModelError: one that is not known here, or a value that it cannot have.
    """
    for key, value in raw.items():
        if key in _KEPT or key in _NO_MATTER or not value or (key, value) == ("bias", "none"):
            continue
        if key == "init_lora_weights" and value in _STARTS:
            continue
        word = f" ({_WORDS[key]})" if key in _WORDS else ""
        raise ModelError(
            f"{name}: {SETTINGS} sets {shown(key)} to {shown(value)}{word}, which is not known here",
            hint="merge the adapter into its base with peft, and give the merged model as policy.model",
        )
    settings = {key: raw[key] for key in sorted(_KEPT & raw.keys()) if not _is_at_rest(raw[key])}
    # peft's defaults
    settings.setdefault("r", 8)
    settings.setdefault("lora_alpha", 8)
    for key, value in settings.items():
        if not _KINDS[key](value):
            raise ModelError(
                f"{name}: {SETTINGS} sets {key} to {shown(value)}, which it cannot be",
                hint="write the adapter again with peft's save_pretrained",
            )
    if "target_modules" not in settings:
        raise ModelError(f"{name}: {SETTINGS} names no target_modules", hint="name the modules it changes")
    return settings


def _is_at_rest(value: Any) -> bool:
    # not by truth: 0 is a layer, and no rank
    return value is None or value is False or value in ({}, [])


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_RANK


def _is_scale(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_names(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(part, str) for part in value)
    )


def _are_layers(value: Any) -> bool:
    return all(type(part) is int for part in (value if isinstance(value, list) else [value]))


def _by_name(is_kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_kind, value.values()))


_KINDS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": _is_scale,
    "target_modules": _are_names,
    "exclude_modules": _are_names,
    "layers_pattern": _are_names,
    "layers_to_transform": _are_layers,
    "rank_pattern": _by_name(_is_rank),
    "alpha_pattern": _by_name(_is_scale),
    "use_rslora": lambda value: value is True,
    "fan_in_fan_out": lambda value: value is True,
}


def _base_of(raw: dict[str, Any], folder: Path, adapter: str) -> tuple[str, str]:
    """What the base is called, and its folder or hub id.

    A relative path is one from the adapter's folder, or else from the current one, where peft and the runs
    that wrote it with such a path look for it.
    """
    named = raw.get("base_model_name_or_path")
    if not isinstance(named, str) or not named or "\0" in named:
        raise ModelError(
            f"{adapter}: {SETTINGS} names no base model",
            hint="write its folder or hub id there as base_model_name_or_path",
        )
    embedded = model_folder(named, "policy")
    if embedded is not None:
        return named, str(embedded)
    for place in (folder / named, Path(named)):
        if place.is_dir():
            return str(place.resolve()), str(place.resolve())
    if not _HUB_ID.fullmatch(named):
        raise ModelError(
            f"{adapter}: its base model {named} is not there",
            hint=f"put it there, or correct base_model_name_or_path in {folder / SETTINGS}",
        )
    return named, named
