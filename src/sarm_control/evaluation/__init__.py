"""Measured results: preferences, recorded scores verified, policies compared, the ledger of latents."""
