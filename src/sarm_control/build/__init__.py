"""A SARM from any causal language model: states, autoencoder, preference head."""
