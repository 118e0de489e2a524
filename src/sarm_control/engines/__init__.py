"""Thin adapters to engines that run on many machines; each needs an extra of its own."""
