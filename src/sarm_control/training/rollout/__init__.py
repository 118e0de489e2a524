"""Answers sampled from the policy, each from a seed of its own."""
