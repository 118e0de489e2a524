"""Answers sampled from the policy, each with a seed of its own."""
