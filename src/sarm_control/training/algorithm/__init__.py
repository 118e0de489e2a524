"""Rewards become advantages, losses and one optimiser step: PPO, RLOO and GRPO."""
