"""The ledger, where evaluation looks for it; training keeps one too, so it lives beside the controls."""

from sarm_control.control.ledger import Floats, Integers, Ledger, latent_ledger, prompt_means

__all__ = ["Floats", "Integers", "Ledger", "latent_ledger", "prompt_means"]
