"""The main job on real text, end to end: build, discover, train two arms, compare.

SmolLM2-135M-Instruct is the policy and the trunk; the SARM is built from RM-Bench rows and tested on
RewardBench 2 safety rows that no building step sees. Each stage is one command; its time and peak
memory are recorded, and a stage whose output exists is not run again.

    python scripts/real_text.py --data ../shared/data [--work work/real] [--only build discover]

Long on a CPU: the two arms are trained side by side, and a step of both takes about a minute.
docs/results/real-text.md holds what the stages up to discovery printed last.
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
LONGEST_PROMPT = 300
"""Characters; longer prompts (about a quarter of them) would dominate the time of a step on a CPU."""
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
        *("--steps", "2000", "--batch", "1024"),
        *("--text", *rows, "--pairs", *rows, places.out("broken_pairs.jsonl")),
        *("--validate", places.out("validation_pairs.jsonl"), "--eval", *places.rows(TEST)),
        *("--cache", places.out("states"), "-o", places.out("sarm")),
    )


def discover(places: Places) -> list[str]:
    """Which latents promote or harm safety: found on RM-Bench, confirmed on RewardBench 2."""
    return sarm(
        *("discover", *places.rows(REFUSE, RESPOND), "--confirm", *places.rows(TEST), "--by", "subset"),
        *("--model", places.out("sarm"), "-o", places.out("discovery")),
        *("--write-controls", places.out("controls.yaml"), "--material", "0.01"),
    )


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


@dataclass(frozen=True)
class Stage:
    """One or more commands that run side by side, and what they leave behind.

    Args:
        commands: by name.
        output: a path that exists once the stage is done.
    """

    commands: dict[str, Callable[[Places], list[str]]]
    output: str


STAGES = {
    "fetch": Stage({"fetch": fetch}, "smollm2/tokenizer.json"),
    "build": Stage({"build": build}, "sarm/config.json"),
    "discover": Stage({"discover": discover}, "discovery/features.json"),
    "train": Stage(
        {
            "train-none": train("none"),
            "train-controls": train("controls", "--controls", "WORK/controls.yaml"),
        },
        "runs/controls/policy/config.json",
    ),
    "compare": Stage({"compare": compare}, "compare/report.json"),
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


def write_broken(places: Places) -> None:
    """For every RM-Bench row: its first chosen answer against what is no answer to its prompt.

    Nothing, its first words, a phrase of it over and over, an answer to another prompt. A reward model
    that has never seen such answers pays for them.
    """
    rng = random.Random(0)
    rows = [row for name in (CHAT, REFUSE, RESPOND) for row in read(places.data / name)]
    firsts = [row["chosen"] if isinstance(row["chosen"], str) else row["chosen"][0] for row in rows]
    broken = []
    for row, first in zip(rows, firsts, strict=True):
        words = first.split()
        start = rng.randrange(max(1, len(words) - 3))
        phrase = words[start : start + rng.randint(1, 3)]
        others = ["", words[: rng.randint(1, 8)], phrase * rng.randint(2, 12), rng.choice(firsts)]
        rejected = [other if isinstance(other, str) else " ".join(other) for other in others]
        rejected = [other for other in dict.fromkeys(rejected) if other != first]
        broken.append({"prompt": row["prompt"], "chosen": [first], "rejected": rejected})
    write(places.work / "broken_pairs.jsonl", broken)


def run_stage(stage: Stage, places: Places) -> None:
    """Runs a stage's commands side by side to their end and records their times and peak memory.

    Raises:
        SystemExit: a command failed; the others are stopped.
    """
    threads = str(max(1, (os.cpu_count() or 1) // len(stage.commands)))
    environment = {**os.environ, "OMP_NUM_THREADS": threads} if len(stage.commands) > 1 else None
    start = time.monotonic()
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
    for name, command in stage.commands.items():
        words = command(places)
        print(f"\n== {name}: {' '.join([Path(words[0]).name, *words[1:]])}", flush=True)
        process = subprocess.Popen(words, env=environment)
        running[process.pid] = name, process
    while running:
        pid, status, usage = os.wait4(-1, 0)
        name, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            for _, other in running.values():
                other.terminate()
            raise SystemExit(f"{name} failed with status {process.returncode}")
        record(places, name, time.monotonic() - start, usage.ru_maxrss // 1024)


def record(places: Places, name: str, seconds: float, peak_mib: int) -> None:
    """Adds a command's time and peak memory to stages.json."""
    path = places.work / "stages.json"
    stages = json.loads(path.read_text()) if path.is_file() else {}
    stages[name] = {"seconds": round(seconds, 1), "peak_mib": peak_mib}
    path.write_text(json.dumps(stages, indent=2) + "\n")
    print(f"== {name}: {seconds:.0f} s, {peak_mib} MiB", flush=True)


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
    write_broken(places)
    start = time.monotonic()
    for name in arguments.only:
        if (places.work / STAGES[name].output).exists():
            print(f"== {name}: {STAGES[name].output} is there already")
        else:
            run_stage(STAGES[name], places)
    print(f"== all: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
