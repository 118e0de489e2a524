"""Labels of latents: typical words, examples, and names from a language model."""
