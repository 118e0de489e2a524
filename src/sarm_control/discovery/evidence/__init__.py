"""How deep the evidence for a latent goes: ablations, changed texts, what latents can show at all."""
