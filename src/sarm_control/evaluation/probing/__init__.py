"""Edits tried on answers: before, after, and the exact change."""
