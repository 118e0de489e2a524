"""ms-swift's own scoring over answers that are given instead of generated; JSON on stdin and stdout.

Run in the environment of ms-swift; imports nothing of this repository but what its plugin file does.
"""

import json
import os
import sys
from types import SimpleNamespace

import torch
from swift.infer_engine.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    RolloutOutput,
    UsageInfo,
)
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import score_completions
from swift.rlhf_trainers.utils import resolve_reward_funcs
from swift.utils import import_external_file


def sample(case: dict) -> GRPOSample:
    """A row of the data set as the data loader hands it over, its rollout put in as the trainer does."""
    row = {"messages": [{"role": "user", "content": case["question"]}], "solution": "a column"}
    found = GRPOSample.from_row({**row, "prompt_id": "p", "request_id": "r"})
    choice = ChatCompletionResponseChoice(
        0,
        ChatMessage("assistant", case["response"]),
        "stop" if case["ended"] else "length",
        token_ids=case["answer_ids"],
    )
    response = ChatCompletionResponse("policy", [choice], UsageInfo(1, 1, 2))
    found.apply_rollout_output(rollout_output=RolloutOutput(response=response))
    return found


def scored(request: dict) -> dict:
    os.environ.update(request["environment"])
    functions, names = resolve_reward_funcs(["sarm"], SimpleNamespace(reward_weights=None))
    try:
        rewards = score_completions(
            [sample(case) for case in request["cases"]],
            functions,
            [None],
            use_gym_env=False,
            device=torch.device("cpu"),
            trainer_state=SimpleNamespace(global_step=0),
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"names": names, "rewards": rewards.tolist()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    import_external_file(asked["plugin"])
    print("ANSWERS " + json.dumps([scored(request) for request in asked["requests"]]))  # noqa: T201
