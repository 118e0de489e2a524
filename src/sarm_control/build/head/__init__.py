"""The preference head of a SARM and how good it is."""
