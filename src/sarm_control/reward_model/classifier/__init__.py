"""Reward models with a linear head over their last state: which they are, how they are loaded and checked."""
