"""What inside a reward model carries a price: its residual, its latents, its state after every token."""
