"""Two audits, or two ends of a training run, on the same attributes."""
