"""Controls for the latents that harm, their doses chosen together, and what they do."""
