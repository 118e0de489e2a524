"""One run in several processes: how they start, and how they share the work."""
