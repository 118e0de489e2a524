"""Answers taken apart for the bench: their rewards under edits, and every contribution.

The page moves rewards by the same algebra without asking. It holds the numbers that are given here: z and w
in float32, what no latent holds in float64.

Shapes: `N` answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.control import Edit, check_exists, check_head, edited_rewards, edits_in
from sarm_control.errors import ConfigError
from sarm_control.reward_model import Scored

KEYS = ("latent", "set", "max", "min", "scale", "add")


def edits_of(given: Sequence[Mapping[str, Any]], size: int) -> list[Edit]:
    """Edits as the page sends them.

    Raises:
        ConfigError: what is no edit, two edits of one latent, or a latent that the model does not have.
    """
    edits = []
    for one in given:
        unknown = sorted(set(one) - set(KEYS))
        if unknown:
            raise ConfigError(f"edit: unknown key {unknown[0]!r}", hint=f"the keys are {', '.join(KEYS)}")
        edits.append(Edit(**one))
    twice = [edit.latent for n, edit in enumerate(edits) if edit.latent in [e.latent for e in edits[:n]]]
    if twice:
        raise ConfigError(f"latent {twice[0]} has two edits", hint="combine them in one edit")
    for edit in edits:
        check_exists(edit.latent, size)
    return edits


def edit_json(edit: Edit) -> dict[str, Any]:
    """An edit as the page holds it: the latent, and the operations that are given."""
    return {name: value for name, value in asdict(edit).items() if value is not None}


def controls_in(name: str, text: str, size: int, fingerprint: str) -> dict[str, Any]:
    """The edits of a controls file that the page opens, and in words what else the file holds.

    Args:
        name: of the file, for errors; its ending says whether it may be YAML.
        text: its content.
        size: L.
        fingerprint: of the head on the bench.

    Raises:
        ConfigError: the text is no file of edits, or one of latents that there are not.
        ModelError: it was made for another head.
    """
    # a browser names a file without its folder; nothing is read from this path
    path = Path(Path(name).name or "the file")
    found = edits_in(text, path)
    check_head(path, found.head, fingerprint)
    for edit in found.edits:
        check_exists(edit.latent, size)
    return {"edits": [edit_json(edit) for edit in found.edits], "left_out": list(found.left_out)}


def taken_apart(scored: Scored, edits: Sequence[Edit] = ()) -> list[dict[str, Any]]:
    """Every answer: its own reward, the edited one, and the parts of which it is the sum.

    `reward_model` and `edited` are float32 as in the answers of `sarm serve`; `latents`, `values` are the
    stored pairs, `residual` and `constant` what a reward model with a head of its own gives beside them.
    """
    edited = edited_rewards(scored, list(edits))
    found = []
    for j in range(len(scored)):
        indices, values = scored.latents.row(j)
        found.append(
            {
                "reward_model": float(scored.rewards[j]),
                "edited": float(edited[j]),
                "latents": indices.tolist(),
                "values": [float(value) for value in values],
                "weights": [float(weight) for weight in scored.head[indices]],
                "residual": float(scored.residual[j]) if len(scored.residual) else 0.0,
                "constant": scored.constant,
                "tokens": int(scored.lengths[j]),
                "truncated": int(scored.truncated[j]),
                "ended": bool(scored.ended[j]),
            }
        )
    return found


def finite(value: Any) -> Any:
    """The same JSON value with None for NaN and infinities, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
