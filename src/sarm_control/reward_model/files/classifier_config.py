"""What a checkpoint of a reward model with a head of its own says about itself."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarm_control.conversation import stored_date
from sarm_control.errors import ModelError
from sarm_control.reward_model.files.config import read_raw_config
from sarm_control.reward_model.trunk.trunk_values import (
    check_trunk_values,
    is_count,
    refuse_quantised,
    refused,
)

ATTACHED = "attached.json"
"""The file that makes a folder one of an attached dictionary."""
STORED = "sarm_control"
"""The key of `config.json` under which pooling and the template's day are kept."""


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a reward model with a linear head over its last state.

    Args:
        source_layer: its decoder layers.
        trunk: the dict in `config.json`.
        pooling: the rule that was kept with it; None where it says none.
        template_date: the day that its chat template sees; None where it says none.
        latents: of the dictionary attached to it; 0 without one.
        k: latents kept for each answer; 0 without a dictionary.
        use_topk: whether only k are kept.
    """

    source_layer: int
    trunk: Mapping[str, Any]
    pooling: str | None = None
    template_date: datetime.date | None = None
    latents: int = 0
    k: int = 0
    use_topk: bool = True


def is_attached(folder: Path) -> bool:
    """Whether a folder is one of an attached dictionary."""
    return (folder / ATTACHED).is_file()


def read_classifier_config(folder: Path, name: str) -> ClassifierConfig:
    """Reads `folder/config.json` of a sequence classifier.

    Raises:
        ModelError: no config, values that no decoder can have, or attention in both directions.
    """
    raw = read_raw_config(folder, name)
    # taken out: it is no part of the trunk's configuration, of which the fingerprint is
    kept = raw.pop(STORED, None) or {}
    check_trunk_values(raw, name)
    refuse_quantised(raw, name)
    inner = raw.get("text_config")
    text: Mapping[str, Any] = inner if isinstance(inner, Mapping) else raw
    if text.get("use_bidirectional_attention"):
        raise ModelError(
            f"{name} is no reward model that can be read: its attention looks in both directions"
        )
    layers = next((text[key] for key in ("num_hidden_layers", "n_layer") if key in text), None)
    if layers is None or not is_count(layers):
        raise refused("num_hidden_layers", layers, name, "a whole number of at least 1")
    if not isinstance(kept, Mapping):
        raise refused(STORED, kept, name, "an object")
    pooling, day = kept.get("pooling"), kept.get("template_date")
    if pooling is not None and not isinstance(pooling, str):
        raise refused(f"{STORED}.pooling", pooling, name, "a rule such as last_token")
    date = None if day is None else stored_date(day)
    if day is not None and date is None:
        raise refused(f"{STORED}.template_date", day, name, "a day such as 2026-01-31")
    return ClassifierConfig(layers, raw, pooling, date)
