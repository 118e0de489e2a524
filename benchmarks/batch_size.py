"""How far a reward depends on the batch it is computed in, for each type of the trunk's weights.

Scores the same answers with a model of random weights and several budgets of tokens. Prints the share of
rewards that are not equal to the bit and the largest difference, in standard deviations of the rewards.
What kernels round depends on the processor: its features for half precision are printed too.

    python benchmarks/batch_size.py [--width 288] [--rows 200] [--json benchmarks/results/batch_size.json]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel

from sarm_control.data.rows import read_rows
from sarm_control.reward_model import Autoencoder, LinearHead, RewardModel, SarmConfig, Trunk
from sarm_control.study.provenance import processor

LAYERS, LATENTS, K = 4, 1_024, 32
BUDGETS = (1, 300, 2_000, 8_192)


def model(width: int, dtype: str) -> RewardModel:
    """Random weights over the lab's words: wide enough for kernels that heed the shape of a product."""
    torch.manual_seed(0)
    template = RewardModel.from_pretrained("lab", device="cpu").template
    config = LlamaConfig(
        vocab_size=len(template.tokenizer),
        hidden_size=width,
        intermediate_size=8 * width // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 32,
        num_key_value_heads=max(1, width // 96),
        initializer_range=0.05,
    )
    trunk = Trunk(LlamaModel(config)).to(getattr(torch, dtype))
    head = LinearHead((0.1 * torch.randn(LATENTS)).numpy())
    shape = SarmConfig(source_layer=LAYERS, latents=LATENTS, k=K, use_topk=True, trunk={})
    return RewardModel(shape, trunk, Autoencoder(width, LATENTS, K), head, template)


def changes(width: int, dtype: str, rows: int) -> list[dict[str, object]]:
    """Against scoring with the first budget: rewards that differ, and by how much."""
    rm = model(width, dtype)
    data = read_rows(Path("lab:audit"), want={"pair"})
    texts = [answer for row in data for answer in row.answers]
    prompts = [data[number % len(data)].prompt for number in range(rows)]
    # one to six answers in a row, so that the lengths differ
    answers = [" ".join(texts[number : number + 1 + number % 6]) for number in range(rows)]
    found = [rm.score(prompts, answers, batch_tokens=budget).rewards for budget in BUDGETS]
    spread = float(found[0].std())
    return [
        {
            "dtype": dtype,
            "batch_tokens": budget,
            "share": float(np.mean(rewards != found[0])),
            "largest": float(np.abs(rewards - found[0]).max()) / spread,
        }
        for budget, rewards in zip(BUDGETS[1:], found[1:], strict=True)
    ]


def main() -> None:
    """Prints one line a type and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--width", type=int, default=288)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    machine = {**processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(f"{machine['processor']} ({', '.join(machine['flags'])}), {machine['threads']} threads")
    print(f"{arguments.rows} answers; against --batch-tokens {BUDGETS[0]}\n")
    print("| trunk | batch tokens | rewards that differ | by at most, SD |\n|---|---|---|---|")
    table = []
    for dtype in ("float32", "bfloat16", "float16"):
        for row in changes(arguments.width, dtype, arguments.rows):
            table.append(row)
            print(f"| {dtype} | {row['batch_tokens']} | {row['share']:.2%} | {row['largest']:.2g} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "table": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
