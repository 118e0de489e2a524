"""Read, test causally, and control what a sparse-autoencoder reward model pays for.

The public names below load on first use, so that importing the package (or asking
for `sarm --help`) loads neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sarm_control.attaching import attach
    from sarm_control.auditing import Audit, audit
    from sarm_control.control import Controls, Edit, HumanKL, KLEstimate, Penalty, estimate_kl
    from sarm_control.discovery import margin_effects
    from sarm_control.functions import compare, discover, evaluate
    from sarm_control.latents import HumanBuffer
    from sarm_control.reward_model import RewardModel, Scored, SparseLatents

__version__ = "0.1.0"

__all__ = [
    "Audit",
    "Controls",
    "Edit",
    "HumanBuffer",
    "HumanKL",
    "KLEstimate",
    "Penalty",
    "RewardModel",
    "Scored",
    "SparseLatents",
    "__version__",
    "attach",
    "audit",
    "compare",
    "discover",
    "estimate_kl",
    "evaluate",
    "margin_effects",
]

_HOME_OF = {
    "attach": "sarm_control.attaching",
    "Audit": "sarm_control.auditing",
    "audit": "sarm_control.auditing",
    "Controls": "sarm_control.control",
    "Edit": "sarm_control.control",
    "HumanBuffer": "sarm_control.latents",
    "HumanKL": "sarm_control.control",
    "KLEstimate": "sarm_control.control",
    "Penalty": "sarm_control.control",
    "RewardModel": "sarm_control.reward_model",
    "Scored": "sarm_control.reward_model",
    "SparseLatents": "sarm_control.reward_model",
    "compare": "sarm_control.functions",
    "discover": "sarm_control.functions",
    "estimate_kl": "sarm_control.control",
    "evaluate": "sarm_control.functions",
    "margin_effects": "sarm_control.discovery.effects.effects",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
