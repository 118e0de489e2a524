"""Suggested controls for the latents that harm: sizes that are chosen together, and their effects."""
