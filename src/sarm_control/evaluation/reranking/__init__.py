"""What edits do to a choice among candidates, and to the best of N."""
