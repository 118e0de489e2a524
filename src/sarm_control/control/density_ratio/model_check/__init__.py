"""Whether the log ratio is linear in its features, and a lower bound where it is not."""
