"""The SARM reward model: configuration, trunk, autoencoder, head, loading, saving, scoring.

Names that need torch are imported when first used: sparse latents and scored rows are plain numpy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sarm_control.sarm.config import SarmConfig
from sarm_control.sarm.head import LinearHead
from sarm_control.sarm.scored import Contribution, Scored
from sarm_control.sarm.sparse import SparseLatents

if TYPE_CHECKING:
    from sarm_control.sarm.autoencoder import Autoencoder, TopK, normalise
    from sarm_control.sarm.reward_model import RewardModel
    from sarm_control.sarm.trunk import Trunk

_NEED_TORCH = {
    "Autoencoder": "autoencoder",
    "TopK": "autoencoder",
    "normalise": "autoencoder",
    "RewardModel": "reward_model",
    "Trunk": "trunk",
}

__all__ = [
    "Autoencoder",
    "Contribution",
    "LinearHead",
    "RewardModel",
    "SarmConfig",
    "Scored",
    "SparseLatents",
    "TopK",
    "Trunk",
    "normalise",
]


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NEED_TORCH[name]}"), name)
