"""Latents kept for later: the human buffer."""

from sarm_control.latents.human import HumanBuffer, choose_latents, latent_features

__all__ = ["HumanBuffer", "choose_latents", "latent_features"]
