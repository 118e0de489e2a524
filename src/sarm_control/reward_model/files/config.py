"""What a SARM checkpoint says about itself.

Three spellings are in use: `config.sarm_param` with `sae_source_layer` and
`sarm_use_activation` (the release), with `sae_hidden_state_source_layer` and
`sarm_use_topk` (older), and no fields at all, only the folder's name (oldest).
"""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from sarm_control.conversation import stored_date
from sarm_control.errors import ModelError
from sarm_control.reward_model.files.checkpoint import read_index
from sarm_control.reward_model.files.checkpoint_files import read_checkpoint_json
from sarm_control.reward_model.trunk.trunk_values import (
    COUNT,
    check_trunk_values,
    is_count,
    refuse_quantised,
    refused,
)

FORMAT_VERSION = 1

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "source_layer": ("sae_source_layer", "sae_hidden_state_source_layer"),
    "latents": ("sae_latent_size",),
    "k": ("sae_k",),
    "use_topk": ("sarm_use_activation", "sarm_use_topk"),
}
_NAME = re.compile(r"_Latent(?P<latents>\d+)_Layer(?P<source_layer>\d+)_K(?P<k>\d+)(?:_|$)")


@dataclass(frozen=True)
class SarmConfig:
    """The shape of a SARM.

    Args:
        source_layer: decoder layers in the trunk, at least 1.
        latents: L, latents of the autoencoder.
        k: latents kept per answer when `use_topk`, in 1..L.
        use_topk: false for heads that read every pre-activation.
        trunk: the trunk's own configuration, as the dict in `config.json`.
        template_date: the day that the chat template was told when the SARM was built; None where it asks
            for none, or the checkpoint does not say.
    """

    source_layer: int
    latents: int
    k: int
    use_topk: bool
    trunk: Mapping[str, Any]
    template_date: datetime.date | None = None

    def sarm_param(self) -> dict[str, Any]:
        """The `sarm_param` block in the release's spelling, and the day where there is one."""
        day = self.template_date
        return {
            "sae_source_layer": self.source_layer,
            "sae_latent_size": self.latents,
            "sae_k": self.k,
            "sae_use_sequence_level": True,
            "sarm_use_activation": self.use_topk,
            **({} if day is None else {"template_date": day.isoformat()}),
        }


def read_config(folder: Path, name: str) -> SarmConfig:
    """Reads `folder/config.json`; fields it lacks come from `name`.

    Args:
        folder: where the checkpoint lies.
        name: what the user called it (hub id or path), which may carry
            `_Latent65536_Layer16_K192_` and `woTopK`.

    Raises:
        ModelError: no config, not JSON, not a SARM, or a value of another type or out of its range.
    """
    raw = read_raw_config(folder, name)
    given = raw.pop("sarm_param", None)
    if given is not None and not isinstance(given, dict):
        raise refused("sarm_param", given, name, "an object")
    fields = {**fields_from_name(name), **_fields_from_param(given or {}, name)}
    missing = sorted(set(_SPELLINGS) - set(fields))
    if missing:
        raise ModelError(
            f"{name} is not a SARM: config.json has no sarm_param with {', '.join(missing)}, "
            "and the name carries no _Latent<L>_Layer<N>_K<k>_",
            hint="build a SARM from it with: sarm build --base "
            f"{name} --layer N --latents L --k K --text texts.jsonl --pairs pairs.jsonl -o DIR",
        )
    config = SarmConfig(trunk=raw, template_date=_day((given or {}).get("template_date"), name), **fields)
    _check(config, name)
    check_trunk_values(raw, name)
    refuse_quantised(raw, name)
    return config


def is_sarm(folder: Path, name: str) -> bool:
    """Whether the files of a folder are a SARM's, whole or not: its config, its name or its tensors say so.

    Raises:
        ModelError: no config, or files that cannot be used.
    """
    if "sarm_param" in read_raw_config(folder, name) or fields_from_name(name):
        return True
    # one that lost its block in config.json is to be refused as a damaged SARM, not scored as a classifier
    return any(key.startswith("sae.") for key in read_index(folder, name))


def read_raw_config(folder: Path, name: str) -> dict[str, Any]:
    """The object in `folder/config.json`, as it is written there.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    path = folder / "config.json"
    if not path.exists() and not path.is_symlink():
        raise ModelError(
            f"{name} has no config.json", hint="give a model folder or a hub id such as org/name"
        )
    return read_checkpoint_json(path)


def fields_from_name(name: str) -> dict[str, Any]:
    """The fields an older checkpoint carries only in its folder's name.

    The last part of the path that carries them decides, so `.../X_Latent64_.../checkpoint-150` works.
    """
    for part in reversed(PurePath(name).parts):
        match = _NAME.search(part)
        if match:
            numbers = {key: int(value) for key, value in match.groupdict().items()}
            # "woTopK" contains "TopK": the negative form is looked for first.
            return {**numbers, "use_topk": "wotopk" not in part.lower()}
    return {}


def _fields_from_param(param: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = {}
    for field, spellings in _SPELLINGS.items():
        given = {key: param[key] for key in spellings if param.get(key) is not None}
        for key, value in given.items():
            flag = field == "use_topk"
            if not (isinstance(value, bool) if flag else is_count(value)):
                raise refused(f"sarm_param.{key}", value, name, "true or false" if flag else COUNT)
        # where they disagree, nobody can tell which the weights were made with
        if len(set(given.values())) > 1:
            said = " and ".join(f"{key} = {value}" for key, value in given.items())
            raise ModelError(f"{name}: sarm_param in config.json says both {said}")
        if given:
            found[field] = next(iter(given.values()))
    return found


def _day(value: Any, name: str) -> datetime.date | None:
    day = None if value is None else stored_date(value)
    if day is None and value is not None:
        raise refused("sarm_param.template_date", value, name, "a day such as 2026-01-31")
    return day


def _check(config: SarmConfig, name: str) -> None:
    if not 1 <= config.k <= config.latents:
        raise ModelError(f"{name}: k is {config.k}, it must be in 1..{config.latents} (the latents)")
    if config.source_layer < 1:
        raise ModelError(f"{name}: the source layer is {config.source_layer}, it must be at least 1")
