"""What stands behind a request: batches for the model, a cache of scores, the state of the controls."""
