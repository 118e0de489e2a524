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
# # Audit and mend
#
# What does a reward model pay for that nobody asked for: length, lists, flattery, closings? An audit puts
# a price on each, in SDs of the reward: beside each other in the answers as they are, and by changing the
# text in that alone. It needs no latents. To *mend* is to edit the latents that carry a price.

# %%
from pathlib import Path

import sarm_control as sc
from sarm_control.auditing import audit_text, mend, mendable, unwanted
from sarm_control.data import read_rows
from sarm_control.latents import ScoredRows, score_rows

rm = sc.RewardModel.from_pretrained("lab")
rows = read_rows(Path("lab:audit"), want={"pair"}, limit=200)
data = ScoredRows(rows, score_rows(rm, rows))

# %% [markdown]
# ## The price list

# %%
audit = sc.audit(rm, data, most=40)
audit

# %%
audit.to_pandas()[["price", "sure"]].dropna().sort_values("price", ascending=False).head(5)

# %%
headlines = [one.attribute.words for one in audit.headlines]
print("paid for and not asked for:", ", ".join(headlines) or "nothing that this many answers can show")

# %% [markdown]
# ## Mend it
#
# Edits of latents are fitted on half of the prompts and judged on the other half: what is left of each
# price, and what it costs in accuracy on the pairs.

# %%
targets = unwanted(audit) or mendable(audit)[:1]
mended = mend(audit, data, targets, guard_points=1.0)
print("targets:", ", ".join(targets))
print("recommended:", mended.recommended, "-", mended.why)
for edit in mended.edits:
    print("  --edit", edit)

# %%
print("\n\n".join(audit_text(audit, mended).split("\n\n")[:2]))

# %% [markdown]
# Where the verdict is "not recommended", that is the result: the price is left as it is, or the model is
# trained again.
