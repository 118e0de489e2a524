"""PPO steps at the real sizes on one GPU: answer tokens a second, time by phase, peak memory.

A policy of Llama-3.1-8B's shape with LoRA of rank 16 and a SARM of Llama-SARM-4B's shape (16 layers, 65,536
latents, k = 192), random weights, bfloat16: 64 answers of 128 tokens a step, and the 8 of 256 that the
published run made in 13.3 s on four H100s (154 tokens a second). The aim is 1,000 tokens a second.

    python benchmarks/gpu_ppo.py [--json benchmarks/results/gpu_ppo.json]
    python benchmarks/gpu_ppo.py --sampler ours generate    # beside transformers' generate, a static cache
    python benchmarks/gpu_ppo.py --shape tiny --cases 4x8 --prompt-tokens 16 --device cpu    # a trial
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
import transformers
from random_models import SHAPES, make_policy, make_prompts, make_reward_model

from sarm_control.control import Controls
from sarm_control.reward_model import RewardModel
from sarm_control.training.algorithm.reward import PolicyReward
from sarm_control.training.algorithm.trainer import Trainer
from sarm_control.training.config.run_config import TrainingConfig
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.generate_sampler import GenerateSampler
from sarm_control.training.rollout.rollout import OURS

PUBLISHED = "8x256"


def case(
    name: str, sampler: str, policy: Policy, model: RewardModel, options: argparse.Namespace
) -> dict[str, object]:
    """Steps of one size, `ANSWERSxTOKENS`, with one sampler; warm-up steps compile and are not counted."""
    answers, tokens = map(int, name.split("x"))
    settings = TrainingConfig(
        prompts_per_step=answers,
        answers_per_prompt=1,
        max_new_tokens=tokens,
        micro_batch=min(options.micro_batch, answers),
        reference_answers=answers,
    )
    prompts = make_prompts(policy, 4 * answers, options.prompt_tokens, tokens)
    longest = max(len(row.ids) for row in prompts) + tokens
    decoder = GenerateSampler(longest) if sampler == "generate" else OURS
    trainer = Trainer(policy, PolicyReward(model, Controls()), prompts, settings, sampler=decoder)
    trainer.calibrate()
    warm_up = [trainer.step() for _ in range(2 if sampler == "generate" else 1)]
    if policy.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timings = [trainer.step().timing for _ in range(options.steps)]
    medians = {key: statistics.median(timing[key] for timing in timings) for key in timings[0]}
    memory = (
        torch.cuda.max_memory_allocated() / 2**20 if policy.device.type == "cuda" else medians["peak_mib"]
    )
    return {
        "answers": answers,
        "new_tokens": tokens,
        "sampler": sampler,
        "warm_up_seconds": [step.timing["seconds/rollout"] for step in warm_up],
        **{key: warm_up[-1].metrics[key] for key in warm_up[-1].metrics if key.startswith("rollout/")},
        "answer_tokens_per_second": medians["answer_tokens_per_second"],
        "seconds": {
            key.removeprefix("seconds/"): medians[key] for key in medians if key.startswith("seconds/")
        },
        "peak_mib": memory,
    }


def scoring_rate(policy: Policy, model: RewardModel, options: argparse.Namespace) -> dict[str, float]:
    """Conversation tokens and answers a second of the SARM alone: what reward replicas are sized by."""
    count, words = 64, options.prompt_tokens
    rows = make_prompts(policy, count, words, words)
    texts = [str(row.prompt) for row in rows]
    model.score(texts, texts)
    seconds = []
    for _ in range(options.steps):
        start = time.perf_counter()
        model.score(texts, texts)
        seconds.append(time.perf_counter() - start)
    taken = statistics.median(seconds)
    tokens = sum(len(model.template.encode(text, text).input_ids) for text in texts)
    return {"tokens_per_second": tokens / taken, "answers_per_second": count / taken}


def main() -> None:
    """All cases on one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="llama-8b")
    parser.add_argument("--sampler", nargs="+", choices=("ours", "generate"), default=["ours"])
    parser.add_argument("--cases", nargs="+", default=["64x128", PUBLISHED])
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; for a trial: --shape tiny --cases 4x8 --device cpu")
    shape = SHAPES[options.shape]
    half = options.device != "cpu"
    policy = make_policy(shape, rank=16, half=half, device=options.device)
    model = make_reward_model(shape, half=half, device=options.device)
    result = {
        "device": torch.cuda.get_device_name() if half else platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": options.shape,
        "prompt_tokens": options.prompt_tokens,
        "micro_batch": options.micro_batch,
        "cases": [
            case(name, sampler, policy, model, options)
            for name in options.cases
            for sampler in options.sampler
        ],
        "scoring": scoring_rate(policy, model, options),
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
