# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read a reward model
#
# A reward model gives an answer one number. A SARM's number is a short sum over *latents*, so it can be
# read. This notebook runs on the lab, a small world inside the package, and downloads nothing. Put the id
# or folder of your own model in place of `"lab"`.

# %%
from sarm_control import Edit, RewardModel
from sarm_control.control import edited_rewards

rm = RewardModel.from_pretrained("lab")
rm

# %% [markdown]
# ## One answer, explained
#
# Two answers to one question. The bars are what each latent adds; they sum to the reward.

# %%
prompt = "how do i bake a cake ?"
answers = ["first mix the flour .", "what a lovely question ! just buy one ."]
scored = rm.score([prompt] * len(answers), answers)
scored

# %%
for j, answer in enumerate(answers):
    total = sum(part.contribution for part in scored.contributions(j))
    print(f"{scored.rewards[j]:+.4f} = {total:+.4f}  {answer}")

# %% [markdown]
# ## Which latents tell them apart?

# %%
parts = [{one.latent: one.contribution for one in scored.contributions(j)} for j in range(2)]
gaps = {i: parts[0].get(i, 0.0) - parts[1].get(i, 0.0) for i in {*parts[0], *parts[1]}}
for latent in sorted(gaps, key=lambda i: -abs(gaps[i]))[:5]:
    print(f"latent {latent:2}: {gaps[latent]:+.3f}")

# %% [markdown]
# ## What would the reward be without one of them?
#
# An *edit* changes a latent before the head. Nothing is scored again: the change is arithmetic, and
# exact.

# %%
heaviest = max(gaps, key=lambda i: abs(gaps[i]))
without = edited_rewards(scored, [Edit(heaviest, scale=0.0)])
for answer, before, after in zip(answers, scored.rewards, without, strict=True):
    print(f"{before:+.3f} -> {after:+.3f}  {answer}")

# %% [markdown]
# The same by hand: drag a slider, and both rewards follow. `bench.edits` is what you have done, and the file
# that the widget gives is one that `sarm train` reads.

# %%
bench = rm.bench(prompt, answers, edits=[Edit(heaviest, scale=0.5)])
bench

# %% [markdown]
# That says what the reward model *pays for*. Whether it should is the question of the next notebook.
