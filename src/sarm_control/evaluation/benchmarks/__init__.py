"""RewardBench 2 and RM-Bench, with and without edits."""
