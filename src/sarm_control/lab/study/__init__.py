"""Studies in worlds: runs with and without controls, and what came of them."""
