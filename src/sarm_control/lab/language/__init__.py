"""The small language of the worlds: words, questions, answers and their attributes."""
