"""Time and memory of scoring against the bare trunk on the same padded batch.

The claim under test: because only the end-of-turn position is encoded, a SARM with 65,536
latents costs what its trunk costs. Three ways of scoring the same batch are timed in turn,
several rounds in one process, and compared by the median of the paired ratios:

    trunk       the trunk alone (the least any reward model over this trunk can cost)
    pooled      ours: pool, then encode one row an answer
    every token the reference implementation's way: encode [B, T, L], then pool

Memory is the peak resident set, while scoring, of a fresh process that holds the same whole
model (trunk, encoder, decoder, head) and runs one way only. Linux only.

    python benchmarks/scoring.py [--rounds 7] [--tokens 256] [--json benchmarks/results/scoring.json]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import Watch, machine, peak_while
from transformers import LlamaConfig, LlamaModel

from sarm_control.reward_model.autoencoder import Autoencoder
from sarm_control.reward_model.trunk.batching import Padded, pad_batch
from sarm_control.reward_model.trunk.pooling import pool_states
from sarm_control.reward_model.trunk.trunk import Trunk

END = 2
WAYS = ("trunk", "pooled", "every token")


def build(layers: int, width: int, latents: int) -> tuple[Trunk, Autoencoder, torch.Tensor]:
    """Random weights in the shape of SmolLM2-135M cut at layer 15, float32."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=width,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    autoencoder = Autoencoder(width, latents, 32).requires_grad_(False)
    return Trunk(LlamaModel(config)), autoencoder, torch.randn(latents) * 1e-3


def make_batch(rows: int, tokens: int) -> Padded:
    """Rows of uneven length up to `tokens`, each ending in the end-of-turn."""
    generator = torch.Generator().manual_seed(1)
    lengths = [tokens - (tokens // (2 * rows)) * j for j in range(rows)]
    ids = [[*torch.randint(3, 49152, (n - 1,), generator=generator).tolist(), END] for n in lengths]
    return pad_batch(ids, pad_id=END)


def ways(
    trunk: Trunk, autoencoder: Autoencoder, head: torch.Tensor, batch: Padded
) -> dict[str, Callable[[], object]]:
    """The three ways; each returns its result so that nothing can be skipped."""

    def run_trunk() -> torch.Tensor:
        states: torch.Tensor = trunk(batch.input_ids, batch.attention_mask)
        return states

    def run_pooled() -> torch.Tensor:
        kept = autoencoder.encode(pool_states(run_trunk(), batch, END))
        return (kept.values * head[kept.indices]).sum(-1)

    def run_every_token() -> torch.Tensor:
        states = run_trunk()
        kept = autoencoder.pre_activations(states).topk(autoencoder.k, dim=-1)
        rewards = (kept.values * head[kept.indices]).sum(-1, keepdim=True)
        return pool_states(rewards, batch, END)[:, 0]

    return dict(zip(WAYS, (run_trunk, run_pooled, run_every_token), strict=True))


def time_ways(callables: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, another first every time; one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    names = list(callables)
    for number in range(rounds + 1):
        # what comes first in a round may find the processor at another pace than what comes later
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            callables[name]()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(arguments: argparse.Namespace, way: str) -> int:
    """Peak resident bytes of a fresh process that runs one way once ("nothing" runs none)."""
    command = [sys.executable, __file__, "--only", way, "--tokens", str(arguments.tokens)]
    command += [
        "--rows",
        str(arguments.rows),
        "--latents",
        str(arguments.latents),
        "--layers",
        str(arguments.layers),
    ]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(
    arguments: argparse.Namespace, seconds: dict[str, list[float]], memory: dict[str, int], others: float
) -> dict[str, object]:
    """Medians of paired ratios, and memory over the bare trunk's; `others` ran beside the rounds."""
    base = seconds["trunk"]
    result: dict[str, object] = {
        "machine": machine(others),
        "shape": {key: getattr(arguments, key) for key in ("rows", "tokens", "layers", "width", "latents")},
        "rounds": arguments.rounds,
    }
    print(f"{arguments.rows} rows of up to {arguments.tokens} tokens, {arguments.latents} latents, float32,")
    threads = torch.get_num_threads()
    print(f"{arguments.layers} layers x {arguments.width}, {arguments.rounds} rounds, {threads} threads\n")
    print("| way | median s | time / trunk | whole process, MiB | memory / trunk |")
    print("|---|---|---|---|---|")
    for name in WAYS:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], base, strict=True))
        row = {
            "median_seconds": statistics.median(seconds[name]),
            "time_ratio": ratio,
            "peak_bytes": memory[name],
            "memory_ratio": memory[name] / memory["trunk"],
        }
        result[name] = row
        mib = memory[name] / 2**20
        print(
            f"| {name} | {row['median_seconds']:.3f} | {ratio:.2f} | {mib:.0f} | {row['memory_ratio']:.2f} |"
        )
    print(f"\nA process that holds the model and runs nothing: {memory['nothing'] / 2**20:.0f} MiB")
    result["nothing_bytes"] = memory["nothing"]
    return result


@torch.inference_mode()
def main() -> None:
    """Runs one way (in a child) or all of them and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("nothing", *WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    callables = ways(
        *build(arguments.layers, arguments.width, arguments.latents),
        make_batch(arguments.rows, arguments.tokens),
    )
    if arguments.only:
        print(peak_while(callables.get(arguments.only, lambda: None)))
        return
    watch = Watch()
    seconds = time_ways(callables, arguments.rounds)
    others = watch.others()
    memory = {way: peak_memory(arguments, way) for way in ("nothing", *WAYS)}
    result = report(arguments, seconds, memory, others)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
