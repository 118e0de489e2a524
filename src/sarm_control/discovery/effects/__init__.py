"""The effect of every latent on a preference, with its tests, interval and kind."""
