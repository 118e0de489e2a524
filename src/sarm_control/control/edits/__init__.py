"""Changes of latents before the head, in code, in files, and written into a checkpoint."""
