"""Rows and their scores into latents of chosen and rejected answers, prompt by prompt."""
