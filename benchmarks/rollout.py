"""The rollout against its limit: what reading every weight once a token would take on this machine.

A policy of SmolLM2-135M's shape (random weights, LoRA of rank 16 on every linear layer) answers 16 prompts of
64 tokens with 64 tokens each, as `sarm train` samples them: by the sampler's own code, with its adapters. The
limit is the time to read the weights once for every token of a batch, at the rate at which this machine reads
memory, measured in the same round. `arithmetic` is the time of all products of the rollout at the rate of the
best large product here: with many rows a processor without matrix units meets that limit first.

    python benchmarks/rollout.py [--rounds 5] [--json benchmarks/results/rollout.json]
    python benchmarks/rollout.py --profile    # the largest pieces of one rollout, by torch's profiler

`packing` is how many times as long the same rollout takes in the same round where no weight is packed.
Answers of a random policy practically never end early. Float32 is measured everywhere, bfloat16 on processors
with units for it. The bar: at most twice the limit.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import Watch, machine
from random_models import SHAPES, make_policy, make_prompts
from torch.utils.flop_counter import FlopCounterMode

from sarm_control.reward_model import has_bfloat16
from sarm_control.training.policy.cpu_linear import can_pack
from sarm_control.training.policy.policy import Policy
from sarm_control.training.rollout.rollout import PromptRow, Rollout, sample_answers

BAR = 2.0
READ_MIB = 512
PIECES = {
    "products of weights": ("mm", "addmm", "bmm", "linear", "mkldnn_linear", "matmul", "_linear_pointwise"),
    "packing": ("_reorder_linear_weight",),
    "attention": ("_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"),
    "cache": ("cat", "index", "index_select", "repeat_interleave"),
    "drawing": ("_softmax", "sum", "cumsum", "searchsorted", "gather", "logsumexp", "constant_pad_nd"),
    "copies": ("copy_", "clone", "contiguous", "_to_copy"),
}


def weight_bytes(policy: Policy) -> int:
    """Bytes of the weights that a token passes, as they are stored: the layers', the last norm's, the head's.

    The table of embeddings is not read, unless it is the head; adapters can be merged and are not counted.
    """
    head = policy.causal.get_output_embeddings().weight
    table = policy.causal.get_input_embeddings().weight
    named = policy.causal.base_model.named_parameters()
    layers = [w for name, w in named if "lora_" not in name and w is not table]
    return sum(w.numel() * w.element_size() for w in (*layers, head))


def read_rate(seconds: float = 1.0) -> float:
    """Bytes a second that sums over a tensor larger than every cache read, the best of about a second."""
    numbers = torch.ones(READ_MIB * 2**18)
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - start)
    return numbers.numel() * numbers.element_size() / min(times)


def product_rate(dtype: torch.dtype, size: int = 2048, seconds: float = 1.0) -> float:
    """Operations a second of the best large product, two for each multiplication and addition."""
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def measure(dtype: torch.dtype, options: argparse.Namespace) -> dict[str, Any]:
    """All rounds in one type; the first rollout is not counted."""
    policy = make_policy(SHAPES[options.shape], rank=16, half=dtype == torch.bfloat16, device="cpu")
    prompts = make_prompts(policy, options.prompts, options.prompt_tokens, options.new_tokens)

    def rollout(tokens: int) -> Rollout:
        return sampled(policy, prompts, options.answers_per_prompt, tokens)

    with FlopCounterMode(display=False, custom_mapping=_packed_flops()) as counter:
        rollout(options.new_tokens)
    rounds = []
    for _ in range(options.rounds):
        rate, flops_rate = read_rate(options.seconds), product_rate(dtype, seconds=options.seconds)
        first = timed(lambda: rollout(1))
        start = time.perf_counter()
        answers = rollout(options.new_tokens)
        seconds = time.perf_counter() - start
        with unpacked():
            plain = timed(lambda: rollout(options.new_tokens))
        limit = max(answers.lengths) * weight_bytes(policy) / rate
        rounds.append(
            {
                "seconds": seconds,
                "seconds_unpacked": plain,
                "packing": plain / seconds,
                "seconds_of_the_first_token": first,
                "tokens_a_second": sum(answers.lengths) / seconds,
                "bytes_a_second": rate,
                "limit_seconds": limit,
                "times_the_limit": seconds / limit,
                "arithmetic_seconds": counter.get_total_flops() / flops_rate,
            }
        )
    found: dict[str, Any] = {
        "weight_bytes": weight_bytes(policy),
        "flops": counter.get_total_flops(),
        **{key: statistics.median(one[key] for one in rounds) for key in rounds[0]},
        "rounds": rounds,
    }
    found["logprobs_apart"] = apart(policy, lambda: rollout(min(8, options.new_tokens)))
    if options.profile:
        found["pieces"] = pieces(lambda: rollout(options.new_tokens))
    return found


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """Inside policies decode with weights in the layout of a table, and in the type that they train in."""
    before = Policy.packs
    Policy.packs = property(lambda _: False)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Policy.packs = before  # type: ignore[method-assign]


def _packed_flops() -> dict[Any, Callable[..., int]]:
    """How PyTorch's counter, which does not know products with packed weights, is to count them."""

    def flops(x: Sequence[int], weight: Sequence[int], *_: Any, **_more: Any) -> int:
        return 2 * math.prod(x) * weight[0]

    return {torch.ops.mkldnn._linear_pointwise: flops} if can_pack() else {}


def sampled(policy: Policy, prompts: Sequence[PromptRow], answers: int, tokens: int) -> Rollout:
    """A rollout as a training step makes it."""
    with policy.precision():
        return sample_answers(
            policy,
            prompts,
            answers_per_prompt=answers,
            max_new_tokens=tokens,
            temperature=1.0,
            seed=0,
            purpose=(1, "rollout"),
        )


def apart(policy: Policy, rollout: Callable[[], Rollout]) -> float:
    """The largest difference between a log-probability of the sampler and that of the training pass."""
    logits, plain = [], policy.logits

    def recording(hidden: torch.Tensor, *, reference: bool = False) -> torch.Tensor:
        logits.append(plain(hidden, reference=reference))
        return logits[-1]

    vars(policy)["logits"] = recording
    answers = rollout()
    del vars(policy)["logits"]
    with torch.no_grad(), policy.precision(), policy.rounded_weights():
        batch = policy.batch([row.ids for row in answers.prompts], answers.answers)
        trained = iter(policy.answer_stats(batch, 1.0).logprobs.tolist())
    table = [[next(trained) for _ in answer] for answer in answers.answers]
    found = 0.0
    for step, drawn in enumerate(logits):
        rows = [row for row, answer in enumerate(answers.answers) if len(answer) > step]
        ours = drawn.log_softmax(dim=-1)[range(len(rows)), [answers.answers[row][step] for row in rows]]
        found = max(found, float((ours - torch.tensor([table[row][step] for row in rows])).abs().max()))
    return found


def timed(work: Callable[[], object]) -> float:
    """Seconds by the clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pieces(work: Callable[[], object]) -> dict[str, float]:
    """Shares of the processor time of a rollout by kind of operation, the largest first."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    averages = profiler.key_averages()
    print(averages.table(sort_by="self_cpu_time_total", row_limit=20))
    spaces = ("aten", "mkldnn")
    kinds = {f"{space}::{one}": kind for kind, names in PIECES.items() for one in names for space in spaces}
    spent: dict[str, float] = {}
    for one in averages:
        kind = kinds.get(one.key, "the rest")
        spent[kind] = spent.get(kind, 0.0) + one.self_cpu_time_total
    whole = sum(spent.values())
    return {kind: value / whole for kind, value in sorted(spent.items(), key=lambda item: -item[1])}


def main() -> None:
    """Measures each type, and says how far from its limit it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="smollm2")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--answers-per-prompt", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each rate, in every round")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    types = [torch.float32, *([torch.bfloat16] if has_bfloat16(torch.device("cpu")) else [])]
    watch = Watch()
    found = {str(dtype).removeprefix("torch."): measure(dtype, options) for dtype in types}
    sizes = ("shape", "prompts", "answers_per_prompt", "prompt_tokens", "new_tokens")
    result = {
        **{name: getattr(options, name) for name in sizes},
        "machine": machine(watch.others()),
        "bar": BAR,
        "types": found,
    }
    for name, one in found.items():
        held = "holds" if one["times_the_limit"] <= BAR else "missed"
        print(
            f"{name}: {one['tokens_a_second']:.0f} tokens a second, {one['seconds']:.2f} s, "
            f"{one['times_the_limit']:.2f} times the limit of {one['limit_seconds']:.2f} s (at most {BAR:g}: "
            f"{held}); all products at the best rate: {one['arithmetic_seconds']:.2f} s; "
            f"without packed weights {one['packing']:.2f} times as long; "
            f"log-probabilities of the sampler and of training differ by {one['logprobs_apart']:.1e} at most"
        )
        for kind, share in one.get("pieces", {}).items():
            print(f"  {kind}: {share:.0%}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
