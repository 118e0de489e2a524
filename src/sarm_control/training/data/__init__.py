"""The prompts of a run: those it trains on and those of its evaluations."""
