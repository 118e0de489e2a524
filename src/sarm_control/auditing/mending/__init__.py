"""A targeted attribute into edits that take its price away, beside other ways to do it, under a guard."""
