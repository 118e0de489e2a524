"""Calls the reward as an engine does, and says whether what comes back is what the engine needs."""
