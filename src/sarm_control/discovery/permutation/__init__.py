"""Permutation tests that redraw which of a prompt's answers were chosen."""
