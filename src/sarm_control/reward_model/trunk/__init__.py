"""The trunk: the first layers of a language model, run in batches, up to the pooled state."""
