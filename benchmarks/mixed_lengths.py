"""Rows a second where answers differ in length, in batches by length or in the order of the file.

The claim: at least twice as many rows a second as batches of a fixed number of rows in file order, padded to
their longest row, which is what a plain loop does. Lengths are those of RM-Bench's rows (words, times
1.3 for tokens), a third of each part; ids and weights are random, in the width of SmolLM2-135M, float32.
Both ways score the same rows in turn in one process; times are compared by the median of the paired ratios.

    python benchmarks/mixed_lengths.py --data ../shared/data [--json benchmarks/results/mixed_lengths.json]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from attached import VOCABULARY, bare_model
from machine import Watch, machine

from sarm_control.conversation import Encoded
from sarm_control.data import read_rows

BAR = 2.0
TOKENS_A_WORD = 1.3
PARTS = ("chat", "safety-refuse", "safety-response")


def rows_of(folder: Path, most: int) -> list[Encoded]:
    """Random ids in the lengths of the answers of all parts, in the order of the files."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for part in PARTS:
        rows = read_rows(folder / f"rm_bench_{part}.jsonl", want={"pair"})
        words = [len(str(row.prompt).split()) + len(text.split()) for row in rows for text in row.answers]
        for count in words[: most // len(PARTS)]:
            tokens = max(2, round(TOKENS_A_WORD * count))
            ids = torch.randint(3, VOCABULARY, (tokens,), generator=generator).tolist()
            found.append(Encoded(ids, 1, 0, True))
    return found


def padded_tokens(lengths: np.ndarray, batch: int) -> int:
    """Tokens of all batches, each padded to its longest row."""
    cuts = range(batch, len(lengths), batch)
    return int(sum(len(part) * part.max() for part in np.array_split(lengths, cuts)))


def main() -> None:
    """Times both ways and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch in file order")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model, watch = bare_model(arguments.layers, arguments.width), Watch()
    rows = rows_of(arguments.data, arguments.rows)

    def in_file_order() -> np.ndarray:
        # a budget that never cuts: each call is one padded batch
        parts = [
            model.score_encoded(rows[start : start + arguments.batch], batch_tokens=10**9).rewards
            for start in range(0, len(rows), arguments.batch)
        ]
        return np.concatenate(parts)

    seconds: dict[str, list[float]] = {"file order": [], "by length": []}
    rewards: dict[str, np.ndarray] = {}
    for number in range(arguments.rounds + 1):  # the first is not counted
        for name, way in (("file order", in_file_order), ("by length", None)):
            start = time.perf_counter()
            rewards[name] = model.score_encoded(rows).rewards if way is None else way()
            if number:
                seconds[name].append(time.perf_counter() - start)
    lengths = np.array([len(row.input_ids) for row in rows])
    padded = padded_tokens(lengths, arguments.batch)
    result = {
        "machine": machine(watch.others()),
        "shape": {key: getattr(arguments, key) for key in ("batch", "layers", "width", "rounds")},
        "rows": len(rows),
        "tokens": {"median": float(np.median(lengths)), "longest": int(lengths.max())},
        "expected_ratio": padded / padded_tokens(np.sort(lengths), arguments.batch),
        "rows_a_second": {name: len(rows) / statistics.median(taken) for name, taken in seconds.items()},
        "ratio": statistics.median(a / b for a, b in zip(*seconds.values(), strict=True)),
        "largest_difference": float(np.abs(rewards["file order"] - rewards["by length"]).max()),
        "bar": BAR,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
