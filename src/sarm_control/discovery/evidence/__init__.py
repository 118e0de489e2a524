"""Evidence beyond the tests: ablations of latents, changed texts, and whether the latents detect the goal."""
