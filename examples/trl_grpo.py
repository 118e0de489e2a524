"""GRPO of TRL on a controlled reward, in the embedded world: python examples/trl_grpo.py --steps 20.

With a model of your own: --policy HuggingFaceTB/SmolLM2-135M-Instruct --model models/sarm --prompts p.jsonl
Two processes: torchrun --nproc_per_node 2 examples/trl_grpo.py; --resume goes on from the last checkpoint.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL reports the use of its trainers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from sarm_control import Controls, Edit, HumanKL, RewardModel
from sarm_control.data.messages import as_messages
from sarm_control.data.rows import read_rows
from sarm_control.embedded import model_folder
from sarm_control.engines.reward.calibration import calibrate
from sarm_control.engines.trl import reward_function

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--policy", default="lab")
parser.add_argument("--model", default="lab")
parser.add_argument("--prompts", default="lab:train_prompts", type=Path)
parser.add_argument("--human", default="lab:human", type=Path)
parser.add_argument("--out", default="runs/trl")
parser.add_argument("--steps", default=20, type=int)
parser.add_argument("--resume", action="store_true")
given = parser.parse_args()

place = model_folder(given.policy, "policy") or given.policy
policy, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
rows = [{"prompt": as_messages(row.prompt)} for row in read_rows(given.prompts, want={"prompt"})]
rm = RewardModel.from_pretrained(given.model)
controls = Controls(edits=[Edit(5, max=2.0)], human_kl=HumanKL(beta="0.1sd"))  # find latents by sarm discover

file = Path(given.out) / "reference.json"
args = GRPOConfig(
    output_dir=given.out,
    max_steps=given.steps,
    save_steps=10,
    per_device_train_batch_size=32,
    num_generations=8,
    max_completion_length=24,
    learning_rate=1e-3,
    bf16=False,
    gradient_checkpointing=False,
    logging_steps=5,
    report_to="none",
)
with args.main_process_first(local=False):
    if not file.exists():
        asked = [row["prompt"] for row in rows[:256]]
        calibrate(rm, controls, policy, tokenizer, asked, max_new_tokens=24).save(file)
reward = reward_function(rm, controls, reference=file, human=given.human, missing_end="1sd")
trainer = GRPOTrainer(
    policy,
    reward,  # type: ignore[arg-type]  # a list[float] is no list[float | None] to mypy
    args,
    Dataset.from_list(rows),
    callbacks=[reward.callback],
)
trainer.train(resume_from_checkpoint=given.resume)
