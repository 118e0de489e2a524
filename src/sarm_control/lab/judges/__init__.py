"""Judges of answers in a world: the gold reward, the annotators, and the planted truth about latents."""
