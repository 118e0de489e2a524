"""PPO with the controls in the reward: policy, rollout, advantages, update, run folder.

Import from the modules; importing the package loads no torch.
"""
