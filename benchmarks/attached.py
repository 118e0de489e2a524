"""Time and memory of scoring a reward model with an attached dictionary against the bare classifier.

The claims under test: at 65,536 latents, time at most 1.05 and memory at most 1.1 of the bare classifier's.
Both score the same answers in turn in one process; times are compared by the median of the paired ratios, and
the rewards have to be equal to the bit. Memory is the peak resident set, while scoring, of a fresh process
that holds one of them. Random weights in the shape of SmolLM2-135M, float32, by default. Linux only.

    python benchmarks/attached.py [--rounds 7] [--tokens 256] [--json benchmarks/results/attached.json]

The dictionary was loaded from its folder, as `sarm score` does it, so that its decoder is left there. Its
share of the memory is that of the encoder, which is held in float16 at this size, as `sarm attach` leaves
it: 2 L D bytes; `expected_memory_ratio` says what the sizes give. In float32 (`--wide`) the encoder alone is
above the bar beside a small model, and the default is one. With `--in-memory` it was made in memory, and the
decoder lies there too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import Watch, machine, peak_while
from transformers import LlamaConfig, LlamaModel

from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.lab.language.tokenizer import make_tokenizer
from sarm_control.reward_model import (
    AttachedAutoencoder,
    ClassifierConfig,
    LinearHead,
    Pooling,
    RewardModel,
    StateHead,
)
from sarm_control.reward_model.attached import read_attached, save_attached
from sarm_control.reward_model.trunk.trunk import Trunk

TIME_BAR, MEMORY_BAR = 1.05, 1.1
VOCABULARY = 49_152


def bare_model(layers: int, width: int) -> RewardModel:
    """A classifier of random weights."""
    torch.manual_seed(0)
    heads = max(1, width // 64)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3 if heads % 3 == 0 else heads,
        max_position_embeddings=8192,
    )
    trunk = Trunk(LlamaModel(config), final_norm=True)
    weight = torch.randn(width).numpy()
    head = LinearHead(np.zeros(0, dtype=np.float32), own=StateHead(weight))
    template = ChatTemplate(make_tokenizer(["a", "b"]), max_length=8192, whole=True)
    return RewardModel(
        ClassifierConfig(layers, {}), trunk, None, head, template, pooling=Pooling("last_token")
    )


def with_dictionary(bare: RewardModel, arguments: argparse.Namespace, folder: Path) -> RewardModel:
    """The same with a dictionary of random weights, from a folder or as it was made."""
    width, latents, k = bare.trunk.hidden_size, arguments.latents, arguments.k
    made = AttachedAutoencoder(torch.zeros(width), 1.0, latents, k)
    if not arguments.wide:
        # as training does it, before anything is measured
        made.narrow_encoder(rounding=True)
    if not arguments.in_memory:
        source = {"model": "bare", "revision": None, "pooling": None, "output": None}
        save_attached(folder / "dictionary", made, source=source, fingerprints=("bare", None))
        made = read_attached(folder / "dictionary", "dictionary").autoencoder
    return bare.attach(made)


def make_rows(rows: int, tokens: int) -> list[Encoded]:
    """Conversations of uneven length up to `tokens`."""
    generator = torch.Generator().manual_seed(1)
    lengths = [tokens - (tokens // (2 * rows)) * j for j in range(rows)]
    return [
        Encoded(torch.randint(3, VOCABULARY, (length,), generator=generator).tolist(), 3, 0, True)
        for length in lengths
    ]


def peak_of(arguments: argparse.Namespace, which: str) -> int:
    """Peak resident bytes of a fresh process that scores with one of the two."""
    command = [sys.executable, __file__, "--only", which]
    for name in ("rows", "tokens", "layers", "width", "latents", "k"):
        command += [f"--{name}", str(getattr(arguments, name))]
    command += ["--in-memory"] if arguments.in_memory else []
    command += ["--wide"] if arguments.wide else []
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(bare: RewardModel, attached: RewardModel, rows: list[Encoded], rounds: int) -> list[list[float]]:
    """Seconds of each in each round, the two in turn, every other round the other first; one uncounted round.

    Raises:
        SystemExit: the rewards differ.
    """
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        rewards: list[np.ndarray] = [np.zeros(0), np.zeros(0)]
        # what comes first in a round may find the processor at another pace than what comes second
        for place in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            rewards[place] = (bare, attached)[place].score_encoded(rows).rewards
            if number:
                seconds[place].append(time.perf_counter() - start)
        if rewards[0].tobytes() != rewards[1].tobytes():
            raise SystemExit("the rewards differ")
    return seconds


def main() -> None:
    """Measures one in a child, or both, and prints what they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, value in (("rows", 8), ("tokens", 256), ("layers", 30), ("width", 576), ("latents", 65_536)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--k", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--wide", action="store_true", help="the encoder in float32, whatever its size")
    parser.add_argument("--only", choices=("bare", "attached"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = make_rows(arguments.rows, arguments.tokens)
    bare = bare_model(arguments.layers, arguments.width)
    if arguments.only == "bare":
        print(peak_while(lambda: bare.score_encoded(rows)))
        return
    with tempfile.TemporaryDirectory() as folder:
        attached = with_dictionary(bare, arguments, Path(folder))
        if arguments.only == "attached":
            print(peak_while(lambda: attached.score_encoded(rows)))
            return
        watch = Watch()
        seconds = compare(bare, attached, rows, arguments.rounds)
        others = watch.others()
    encoder = attached.autoencoder.encoder.weight
    print_and_write(arguments, seconds, others, encoder.dtype)


def print_and_write(
    arguments: argparse.Namespace, seconds: list[list[float]], others: float, held: torch.dtype
) -> None:
    """What was measured, and the memory of either in a process of its own; `others` ran beside the rounds."""
    ratio = statistics.median(two / one for one, two in zip(*seconds, strict=True))
    memory = {which: peak_of(arguments, which) for which in ("bare", "attached")}
    dictionary = (held.itemsize + 4 * arguments.in_memory) * arguments.latents * arguments.width
    found = {
        "machine": machine(others),
        "shape": {
            key: getattr(arguments, key) for key in ("rows", "tokens", "layers", "width", "latents", "k")
        },
        "rounds": arguments.rounds,
        "seconds": {"bare": statistics.median(seconds[0]), "attached": statistics.median(seconds[1])},
        "time_ratio": ratio,
        "time_bar": TIME_BAR,
        "peak_bytes": memory,
        "memory_ratio": memory["attached"] / memory["bare"],
        "memory_bar": MEMORY_BAR,
        "encoder": str(held).removeprefix("torch."),
        "dictionary_bytes": dictionary,
        "expected_memory_ratio": 1 + dictionary / memory["bare"],
    }
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
