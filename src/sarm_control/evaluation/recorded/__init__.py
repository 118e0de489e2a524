"""Comparisons of a reward model with recorded scores and with a published run."""
