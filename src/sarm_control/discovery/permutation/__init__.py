"""Tests that redraw which of a prompt's answers were the chosen ones."""
