"""The scoring behind a request: batches for the model, a cache of latents, and the state of the controls."""
