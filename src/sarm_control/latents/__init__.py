"""Latents kept for later: folders of them on disk, and the human buffer."""

from sarm_control.latents.folder import LatentsFolder, is_latents, read_latents
from sarm_control.latents.human import Coverage, HumanBuffer, choose_latents, latent_features
from sarm_control.latents.rows import ScoredRows

__all__ = [
    "Coverage",
    "HumanBuffer",
    "LatentsFolder",
    "ScoredRows",
    "choose_latents",
    "is_latents",
    "latent_features",
    "read_latents",
]
