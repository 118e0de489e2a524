"""A prompt and an answer into numbers: what every audit asks about, and what users add."""
