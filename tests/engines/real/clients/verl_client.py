"""verl's own reward loop over answers that are given instead of generated; JSON on stdin and stdout.

Run in the environment of verl; imports nothing of this repository but what verl finds by itself.
"""

import asyncio
import json
import sys

import numpy as np
import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from verl import DataProto
from verl.experimental.reward_loop import RewardLoopWorker


def sample(case: dict, tokenizer) -> DataProto:
    """One sample as `AgentLoopWorker._compute_score` makes it."""
    prompt = torch.tensor(tokenizer(case["prompt"], add_special_tokens=False)["input_ids"])
    answer = torch.tensor(case["answer_ids"])
    ids = torch.cat([prompt, answer])
    padded = 4  # as in a batch with a longer answer
    batch = TensorDict(
        {
            "prompts": prompt[None],
            "responses": torch.nn.functional.pad(answer, (0, padded))[None],
            "attention_mask": torch.nn.functional.pad(torch.ones_like(ids), (0, padded))[None],
            "input_ids": torch.nn.functional.pad(ids, (0, padded))[None],
            "position_ids": torch.arange(len(ids) + padded)[None],
        },
        batch_size=1,
    )
    messages = [{"role": "user", "content": case["question"]}]
    fields = {
        "raw_prompt": messages,
        "data_source": "lab",
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"index": 0},
        "tool_extra_fields": {"raw_prompt": messages},
        "__num_turns__": 2,
    }
    if case.get("without_prompt"):
        fields["raw_prompt"], fields["tool_extra_fields"] = None, {}
    return DataProto(batch=batch, non_tensor_batch={key: np.array([value]) for key, value in fields.items()})


def config(asked: dict):
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose(
            "ppo_trainer",
            overrides=[f"actor_rollout_ref.model.path={asked['tokenizer']}", *asked["overrides"]],
        )


async def scored(worker: RewardLoopWorker, data: DataProto) -> dict:
    try:
        return await worker.compute_score(data)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


async def main(asked: dict) -> list[dict]:
    worker = RewardLoopWorker(config(asked), asked.get("router"))
    samples = [sample(case, worker.input_tokenizer) for case in asked["cases"]]
    return list(await asyncio.gather(*(scored(worker, one) for one in samples)))


if __name__ == "__main__":
    print("ANSWERS " + json.dumps(asyncio.run(main(json.load(sys.stdin)))))  # noqa: T201
