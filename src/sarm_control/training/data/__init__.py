"""The prompts that a run trains on and is evaluated on."""
