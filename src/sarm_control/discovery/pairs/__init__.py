"""The latents of chosen and rejected answers, grouped by prompt, from rows and their scores."""
