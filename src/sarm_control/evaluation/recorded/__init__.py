"""Recorded scores and published runs, held against what comes out here."""
