"""What a server reports about its model and its controls."""

from typing import Any

import numpy as np

from sarm_control.server.scoring.state import ServerState


def model_view(state: ServerState, version: str) -> dict[str, Any]:
    """The body of `GET /v1/model`."""
    reward, controls = state.reward, state.controls
    model = reward.model
    return {
        "model": state.settings.model_name,
        "kind": model.kind,
        "pooling": str(model.pooling),
        "head": model.fingerprint,
        "latents": model.config.latents,
        "k": model.config.k if model.config.use_topk else None,
        "context": model.template.max_length,
        **({"template_date": model.template.date.isoformat()} if model.template.date else {}),
        "dtype": str(next(model.trunk.parameters()).dtype).removeprefix("torch."),
        "devices": [str(one.device) for one in state.models],
        "standardize": reward.standardize,
        "controls": _plain(reward.controls.to_dict()),
        "missing_end": reward.rule.missing_end,
        "shaping": reward.shaping,
        "terms": list(reward.terms),
        "human_kl": {
            "version": controls.version,
            "learns": controls.learns,
            "state": controls.digest,
            "metrics": {name: value for name, value in controls.metrics.items() if np.isfinite(value)},
        },
        "version": version,
    }


def latent_view(state: ServerState, latent: int) -> dict[str, Any]:
    """The body of `GET /v1/latents/{latent}` for a latent that exists."""
    controls = _plain(state.reward.controls.to_dict())
    human_kl = state.reward.controls.human_kl
    active, answers = state.controls.fired(latent)
    return {
        "latent": latent,
        "head": state.reward.model.fingerprint,
        "weight": float(state.reward.model.head.weight[latent]),
        "edits": [one for one in controls["edits"] if one["latent"] == latent],
        "penalties": [one for one in controls["penalties"] if one["latent"] == latent],
        "in_human_kl": human_kl is not None and latent in human_kl.latents,
        "answers": answers,
        "active": active,
    }


def _plain(value: Any) -> Any:
    """The value as JSON data; numpy numbers and tuples are converted."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
