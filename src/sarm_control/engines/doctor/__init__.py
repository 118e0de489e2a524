"""Calls the reward as an engine does, and reports whether the engine gets what it needs."""
