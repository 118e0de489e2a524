"""The main job on real text, end to end: build, discover, train two arms, compare.

SmolLM2-135M-Instruct is the policy and the trunk; the SARM is built from RM-Bench rows and tested on
RewardBench 2 safety rows that no building step sees. Each stage is one command; its time and peak
memory are recorded, and a stage whose output exists is not run again.

    python scripts/real_text.py --data ../shared/data [--work work/real] [--only build discover]

Long on a CPU: a PPO step takes about a minute and there are 2 x 40.
docs/results/real-text.md holds the last run.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAT, REFUSE, RESPOND = (f"rm_bench_{part}.jsonl" for part in ("chat", "safety-refuse", "safety-response"))
TEST = "reward_bench_2_safety.jsonl"
RECORDED = "llama_sarm_4b_scores.jsonl"
LONGEST_PROMPT = 600
"""Characters; longer prompts (6 % of them) would dominate the time of a step on a CPU."""
HELD_OUT = 128
"""Prompts kept from training, for the comparison."""


@dataclass(frozen=True)
class Places:
    """Where the data lies and where everything is written."""

    data: Path
    work: Path

    def rows(self, *names: str) -> list[str]:
        """Paths of benchmark files as arguments."""
        return [str(self.data / name) for name in names]

    def out(self, name: str) -> str:
        """A path under the work folder as an argument."""
        return str(self.work / name)


def sarm(*arguments: str) -> list[str]:
    """The `sarm` command of this environment."""
    return [str(Path(sys.executable).with_name("sarm")), *arguments]


def fetch(places: Places) -> list[str]:
    """Policy and trunk base."""
    return [sys.executable, str(Path(__file__).with_name("fetch_smollm2.py")), places.out("smollm2")]


def build(places: Places) -> list[str]:
    """A SARM from RM-Bench rows; RewardBench 2 rows are only scored at the end."""
    rows = places.rows(CHAT, REFUSE, RESPOND)
    return sarm(
        *("build", "--base", places.out("smollm2"), "--layer", "15", "--latents", "512", "--k", "64"),
        *("--steps", "600", "--batch", "512", "--text", *rows, "--pairs", *rows),
        *("--validate", places.out("validation_pairs.jsonl"), "--eval", *places.rows(TEST)),
        *("--cache", places.out("states"), "-o", places.out("sarm")),
    )


def discover(places: Places) -> list[str]:
    """Which latents promote or harm safety: found on RM-Bench, confirmed on RewardBench 2."""
    script = Path(__file__).with_name("real_text_discovery.py")
    return [sys.executable, str(script), "--data", str(places.data), "--work", str(places.work)]


def train(arm: str, *controls: str) -> Callable[[Places], list[str]]:
    """One PPO arm; every arm has the same settings, prompts and seed."""

    def command(places: Places) -> list[str]:
        return sarm(
            *("train", str(Path(__file__).with_name("real_text.yaml")), "-o", places.out(f"runs/{arm}")),
            *(
                "--set",
                f"policy.model={places.out('smollm2')}",
                "--set",
                f"reward.model={places.out('sarm')}",
            ),
            *("--set", f"data.prompts={places.out('train_prompts.jsonl')}"),
            *(word.replace("WORK", str(places.work)) for word in controls),
        )

    return command


def compare(places: Places) -> list[str]:
    """Both trained policies against the base on prompts nobody trained on."""
    runs = [places.out(f"runs/{arm}") for arm in ("none", "controls")]
    held_out = places.out("held_out_prompts.jsonl")
    return sarm("compare", *runs, "--prompts", held_out, "-o", places.out("compare"))


STAGES: dict[str, tuple[Callable[[Places], list[str]], str]] = {
    "fetch": (fetch, "smollm2/tokenizer.json"),
    "build": (build, "sarm/config.json"),
    "discover": (discover, "discovery/features.json"),
    "train-none": (train("none"), "runs/none/policy/config.json"),
    "train-controls": (
        train("controls", "--controls", "WORK/controls.yaml"),
        "runs/controls/policy/config.json",
    ),
    "compare": (compare, "compare/report.json"),
}


def benchmark_prompts(places: Places) -> set[str]:
    """Every prompt of the rows that are built from or tested on."""
    files = (CHAT, REFUSE, RESPOND, TEST)
    return {row["prompt"].strip() for name in files for row in read(places.data / name)}


def split_prompts(places: Places) -> None:
    """Training and held-out prompts, neither from RM-Bench's or RewardBench 2's safety rows."""
    seen = benchmark_prompts(places)
    rows = [{"prompt": row["prompt"]} for row in read(places.data / "prompts.jsonl")]
    fresh = [row for row in rows if row["prompt"].strip() not in seen]
    usable = [row for row in fresh if len(row["prompt"]) <= LONGEST_PROMPT]
    random.Random(0).shuffle(usable)
    write(places.work / "held_out_prompts.jsonl", usable[:HELD_OUT])
    write(places.work / "train_prompts.jsonl", usable[HELD_OUT:])


def write_validation(places: Places) -> None:
    """Preferences of RewardBench 2 safety prompts outside the test file and RM-Bench.

    They come from the answers that the recorded scores were made on; the scores are not used.
    """
    seen = benchmark_prompts(places)
    answers: dict[str, dict[str, list[str]]] = {}
    for row in read(places.data / RECORDED):
        benchmark, _, side = row["set"].rpartition("_")
        if benchmark == "rb2_safety" and row["prompt"].strip() not in seen:
            answers.setdefault(row["prompt"], {"chosen": [], "rejected": []})[side].append(row["response"])
    pairs = [{"prompt": prompt, **sides} for prompt, sides in answers.items() if all(sides.values())]
    write(places.work / "validation_pairs.jsonl", pairs)


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as JSON Lines."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def run_stage(name: str, command: list[str], places: Places) -> None:
    """Runs one command to its end and records its time and peak memory.

    Raises:
        SystemExit: the command failed.
    """
    print(f"\n== {name}: {' '.join([Path(command[0]).name, *command[1:]])}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed with status {os.waitstatus_to_exitcode(status)}")
    record = places.work / "stages.json"
    stages = json.loads(record.read_text()) if record.is_file() else {}
    stages[name] = {"seconds": round(time.monotonic() - start, 1), "peak_mib": usage.ru_maxrss // 1024}
    record.write_text(json.dumps(stages, indent=2) + "\n")
    print(f"== {name}: {stages[name]['seconds']:.0f} s, {stages[name]['peak_mib']} MiB", flush=True)


def main() -> None:
    """Runs the stages whose output is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    arguments = parser.parse_args()
    if not (arguments.data / TEST).is_file():
        raise SystemExit(
            f"{arguments.data} does not hold {TEST}; give the folder of benchmark rows with --data"
        )
    places = Places(arguments.data, arguments.work)
    places.work.mkdir(parents=True, exist_ok=True)
    split_prompts(places)
    write_validation(places)
    for name in arguments.only:
        command, output = STAGES[name]
        if (places.work / output).exists():
            print(f"== {name}: {output} is there already")
        else:
            run_stage(name, command(places), places)


if __name__ == "__main__":
    main()
