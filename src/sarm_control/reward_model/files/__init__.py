"""Checkpoints on disk: which files and tensors are the model, what they may hold, how they are written."""
