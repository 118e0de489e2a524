"""Words, examples and names for latents."""
