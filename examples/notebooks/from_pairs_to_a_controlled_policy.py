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
# # From your own preference data to a controlled policy
#
# Your pairs say which answer is better. The reward model pays for something else as well. Find it, take
# it out of the reward, train, and see what that did. Everything here runs on the lab; the comments say
# what to put in place.

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

import sarm_control as sc
from sarm_control.data import read_rows
from sarm_control.discovery import controls_yaml

rm = sc.RewardModel.from_pretrained("lab")  # your SARM
pairs = Path("lab:audit")  # your file of pairs
rows = read_rows(pairs, want={"pair"})
print(len(rows), "pairs, for example:", rows[0].prompt_text, "|", rows[0].chosen[0], "|", rows[0].rejected[0])

# %% [markdown]
# ## Which latents harm?
#
# A latent harms when it adds more to the worse answer of a pair. Latents are selected on half of the
# prompts and measured on the other half.

# %%
found = sc.discover(rm, rows, random_sets=100)
found

# %% [markdown]
# ## Controls for them
#
# The discovery chose their sizes together. They go into a file that `sarm train` reads.

# %%
work = Path(tempfile.mkdtemp())
controls = work / "controls.yaml"
controls.write_text(controls_yaml(found, model="lab", material=0.01, material_sd=0.0))
print(controls.read_text()[:600])

# %% [markdown]
# ## Train with them
#
# Two steps of eight answers are enough to see how it goes, and far too few to see an effect: a real run
# has a hundred. Without `--steps` and `--set` this is the command to use.


# %%
def sarm(*words):
    done = subprocess.run(
        [sys.executable, "-m", "sarm_control", *map(str, words)], capture_output=True, text=True
    )
    print(done.stdout + done.stderr)
    done.check_returncode()


few = [
    "--set",
    "training.prompts_per_step=4",
    "--set",
    "training.reference_answers=16",
    "--set",
    "evaluation.every=0",
]
sarm("train", "--controls", controls, "--steps", 2, *few, "-o", work / "controls")

# %% [markdown]
# ## What did it do?
#
# Base and trained policy answer held-out prompts with the same random numbers. After two steps hardly an
# answer differs, and the comparison says so: too few prompts to tell. After a hundred there is something to
# read.

# %%
held_out = [
    {"prompt": row.prompt_text} for row in read_rows(Path("lab:held_out_prompts"), want={"prompt"})[:24]
]
compared = sc.compare(work / "controls", prompts=held_out, gold="lab")
compared

# %%
compared.to_pandas()[["measure", "change_mean", "change_low", "change_high"]]
