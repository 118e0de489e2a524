"""What `sarm latents` holds in memory as the data grows, and what an answer takes on disk.

Each run is a fresh process on the rows of lab:preferences, repeated to 1, 4 and 16 times as many, with a
SARM of the released size where it matters (65,536 latents, k = 192; random weights on the lab's trunk).
Peak resident memory comes from the operating system. Beside it the same rows scored in one piece, which
is what streaming is for. Peaks of equal runs differ, so each is made `--repeats` times and the medians are
compared. The claims under test: from 1x to 16x the peak of `sarm latents` grows by less than a tenth of
what one piece grows by, and an answer takes at most 1,300 bytes. Where Linux tells it, what the longest
run holds is read as well, each time another sixteenth of its shards is done.

    python benchmarks/latents.py [--rows 500] [--repeats 3] [--json benchmarks/results/latents.json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from machine import Watch, machine

LATENTS, KEPT = 65_536, 192
TIMES = (1, 4, 16)
LIMIT = 1_300
IN_ONE_PIECE = """
import sys
from pathlib import Path
from sarm_control.data.rows import read_rows
from sarm_control.latents.rows import score_rows
from sarm_control.reward_model import RewardModel
rows = read_rows(Path(sys.argv[1]), want={"pair"})
score_rows(RewardModel.from_pretrained(sys.argv[2]), rows)
"""


def make_model(folder: Path) -> Path:
    """A SARM of the released width over the lab's trunk; weights are random."""
    import numpy as np
    import torch

    from sarm_control.reward_model import Autoencoder, LinearHead, RewardModel, SarmConfig

    torch.manual_seed(0)
    lab = RewardModel.from_pretrained("lab")
    width = lab.trunk.hidden_size
    autoencoder = Autoencoder(width, LATENTS, KEPT)
    head = LinearHead(np.random.default_rng(0).normal(size=LATENTS).astype(np.float32))
    config = SarmConfig(lab.config.source_layer, LATENTS, KEPT, use_topk=True, trunk=lab.config.trunk)
    return RewardModel(config, lab.trunk, autoencoder, head, lab.template).save_pretrained(folder)


def make_rows(path: Path, count: int) -> Path:
    """The first `count` rows of lab:preferences, over and over where there are fewer."""
    from sarm_control.data.rows import read_rows

    rows = cycle(json.dumps(row.raw) for row in read_rows("lab:preferences", want={"pair"}))
    path.write_text("".join(f"{row}\n" for row in islice(rows, count)), encoding="utf-8")
    return path


def peak_bytes(command: list[str]) -> int:
    """Peak resident bytes of a command in a process of its own."""
    return waited(subprocess.Popen(command))


def waited(process: "subprocess.Popen[bytes]") -> int:
    """Peak resident bytes of a process, once it has ended."""
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{process.args!r} ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return int(usage.ru_maxrss) * unit


def held_bytes(command: list[str], out: Path, shards: int) -> list[int]:
    """Resident bytes of a run each time another sixteenth of its shards is in its folder."""
    held: list[int] = []
    process, wanted = subprocess.Popen(command), shards / 16
    status = Path(f"/proc/{process.pid}/status")
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        done = len(list(out.glob("answers-*")))
        if done >= wanted * (len(held) + 1):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if "VmRSS" in lines:
                held.append(1024 * int(lines["VmRSS"].split()[0]))
        time.sleep(0.02)
    waited(process)
    return held


def bytes_per_answer(folder: Path) -> float:
    """What the tables of answers take on disk, over their number."""
    said = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    tables = [record["size"] for name, record in said["files"].items() if name.startswith("answers-")]
    return float(sum(tables) / said["answers"])


def run(rows: int, shard: int, repeats: int, folder: Path) -> dict[str, Any]:
    """All processes, and the table of them."""
    model = str(make_model(folder / "model"))
    found: dict[str, dict[str, list[int]]] = {"sarm latents": {}, "in one piece": {}}
    for times in TIMES:
        data = str(make_rows(folder / f"{times}.jsonl", rows * times))
        sarm = [sys.executable, "-m", "sarm_control", "--quiet", "latents", data, "--model", model]
        out = [*sarm, "-o", str(folder / f"{times}"), "--shard-size", str(shard), "--overwrite"]
        whole = [sys.executable, "-c", IN_ONE_PIECE, data, model]
        found["sarm latents"][f"{times}x"] = [peak_bytes(out) for _ in range(repeats)]
        found["in one piece"][f"{times}x"] = [peak_bytes(whole) for _ in range(repeats)]
    held: list[int] = []
    if sys.platform == "linux":
        again, shards = folder / "again", -(-rows * TIMES[-1] // shard)
        held = held_bytes([*sarm, "-o", str(again), "--shard-size", str(shard)], again, shards)
    middle = {
        way: {times: int(statistics.median(peaks)) for times, peaks in sizes.items()}
        for way, sizes in found.items()
    }
    return {
        "rows_1x": rows,
        "answers_1x": 2 * rows,
        "shard_rows": shard,
        "latents": LATENTS,
        "k": KEPT,
        "peaks_bytes": found,
        "median_peak_bytes": middle,
        "growth_1x_to_16x_bytes": {way: sizes["16x"] - sizes["1x"] for way, sizes in middle.items()},
        "held_bytes_16x": held,
        "bytes_per_answer": bytes_per_answer(folder / "16"),
        "dense_bytes_per_answer": 4 * LATENTS,
    }


def show(result: dict[str, Any]) -> None:
    """The same as a table."""
    print("| | " + " | ".join(f"{times}x rows" for times in TIMES) + " | growth, MiB |")
    print("|---|" + "---|" * (len(TIMES) + 1))
    for way, sizes in result["median_peak_bytes"].items():
        peaks = [f"{sizes[f'{times}x'] / 2**20:.0f} MiB" for times in TIMES]
        print(f"| {way} | {' | '.join(peaks)} | {result['growth_1x_to_16x_bytes'][way] / 2**20:.0f} |")
    for way, sizes in result["peaks_bytes"].items():
        widest = max(max(peaks) - min(peaks) for peaks in sizes.values())
        print(f"{way}: equal runs differ by up to {widest / 2**20:.0f} MiB")
    if result["held_bytes_16x"]:
        held = ", ".join(f"{one / 2**20:.0f}" for one in result["held_bytes_16x"])
        print(f"held by sarm latents after each sixteenth of 16x rows, MiB: {held}")
    print(f"{result['bytes_per_answer']:.0f} bytes an answer; dense {result['dense_bytes_per_answer']}")


def main() -> None:
    """Prints a table and exits with 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=500, help="rows at 1x; each has two answers")
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=3, help="equal runs of each size")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        result = run(arguments.rows, arguments.shard_size, arguments.repeats, Path(folder))
    result = {"machine": machine(watch.others()), **result}
    show(result)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    growth = result["growth_1x_to_16x_bytes"]
    flat = growth["sarm latents"] < growth["in one piece"] / 10
    sys.exit(0 if flat and result["bytes_per_answer"] <= LIMIT else 1)


if __name__ == "__main__":
    main()
