"""Studies in worlds: runs with and without controls, and their measures."""
