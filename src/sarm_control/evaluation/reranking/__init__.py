"""The effect of edits on a choice among candidates, and on the best of N."""
