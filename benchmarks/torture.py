"""Kills training runs and compares what they come to with a run nothing stopped.

    python benchmarks/torture.py --kills 60 --out benchmarks/results/torture.json

trains `examples/lab.yaml` (every control on, an evaluation every 6 steps) for 12 steps on small batches, once
in a process of its own; then again and again in forks that die by SIGKILL, at random moments and at exact
places, some of them again while they resume. Every resumed run is compared, byte for byte, with the first.
CPU, float32. The places and how they are reached: `tests/killing.py`.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import killing  # noqa: E402
from tests.killing import Kill  # noqa: E402

STEPS, DEMONSTRATIONS = 12, 64
SMALL = {
    "training.steps": STEPS,
    "training.prompts_per_step": 4,
    "training.minibatches": 2,
    "training.max_new_tokens": 16,
    "training.reference_answers": 16,
    "checkpoints.every": 3,
    "evaluation.every": 6,
    "evaluation.answers": 8,
}
EXACT = {
    "rollout": 5,
    "reward": 3,
    "update": 4,
    "updated": 3,
    "row": 5,
    "tensor": 4,
    "fsync": 4,
    "rename": 3,
    "pointer": 4,
    "pointed": 2,
    "drop": 2,
    "policy": 1,
    "finish": 1,
}
WORDS = {**killing.PLACES, "time": "at a random moment"}


def main() -> None:
    """Kills, resumes, compares, and writes the table."""
    asked = _arguments()
    kept = tempfile.mkdtemp(prefix="torture.")
    try:
        found = torture(Path(kept), asked.kills, asked.seed, asked.out)
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    print(table(found))
    sys.exit(0 if found["equal"] == found["runs"] else 1)


def torture(folder: Path, kills: int, seed: int, out: Path | None) -> dict[str, Any]:
    """All runs; the results are written after each, so that a stop keeps what was done."""
    words = command(folder)
    whole = folder / "whole" / "run"
    plain = [sys.executable, "-m", "sarm_control", "--quiet", "train", *words, "-o", str(whole)]
    subprocess.run(plain, check=True, stdout=subprocess.DEVNULL)
    from sarm_control.cli import main as sarm

    # Forks start with all that such a run imports; a step here could leave threads that a fork loses.
    none = ["--set", "training.steps=0", "-o", str(folder / "none")]
    assert sarm(["--quiet", "train", *words, *none]) == 0

    began = time.monotonic()
    assert killing.run([*words, "-o", folder / "counted" / "run"], folder / "counted") == 0
    seconds = time.monotonic() - began
    counts = killing.calls(folder / "counted")
    rng = random.Random(seed)
    runs: list[dict[str, Any]] = [
        {"kills": [], "differs": killing.differences(folder / "counted" / "run", whole)}
    ]
    plan = planned(kills, counts, seconds, rng)
    found = summary(runs, counts, seconds)
    for number, kill in enumerate(plan):
        if sum(len(run["kills"]) for run in runs) >= kills:
            break
        again = Kill("time", rng.uniform(0.1, 1) * seconds) if number % 4 == 3 else None
        runs.append(one(folder / f"run-{number}", words, whole, [kill, *([again] if again else [])]))
        found = summary(runs, counts, seconds)
        if out is not None:
            out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(number, runs[-1], file=sys.stderr, flush=True)
    return found


def one(folder: Path, words: list[str], whole: Path, kills: list[Kill]) -> dict[str, Any]:
    """One run, killed, resumed and compared."""
    done: list[dict[str, Any]] = []
    resume: list[str] = []
    for kill in kills:
        code = killing.run([*words, "-o", folder / "run", *resume], folder, kill)
        if code == -9:
            done.append({"place": kill.place, "at": round(kill.at, 3), "left": state(folder / "run")})
        resume = ["--resume"]
    code = killing.run([*words, "-o", folder / "run", "--resume"], folder)
    said = (folder / "said.txt").read_text()
    differs = killing.differences(folder / "run", whole) if code == 0 else [said[-500:]]
    shutil.rmtree(folder)
    return {"kills": done, "differs": differs}


def state(run: Path) -> str:
    """What a kill left: rows and checkpoints."""
    rows = run / "metrics.jsonl"
    names = [path.name for path in (run / "checkpoints").glob("*")] if run.is_dir() else []
    count = rows.read_bytes().count(b"\n") if rows.is_file() else 0
    return f"{count} rows, {', '.join(sorted(names)) or 'no checkpoint'}"


def command(folder: Path) -> list[str]:
    """The words after `sarm train`; the demonstrations are the first of the lab's."""
    from sarm_control.embedded import data_file

    rows = data_file(Path("lab:human")).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "human.jsonl").write_text("".join(rows[:DEMONSTRATIONS]), encoding="utf-8")
    settings = {**SMALL, "data.human": str(folder / "human.jsonl")}
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [str(ROOT / "examples" / "lab.yaml"), *sets]


def planned(kills: int, counts: dict[str, int], seconds: float, rng: random.Random) -> list[Kill]:
    """Exact places in the shares of `EXACT`, the rest at random moments, in random order."""
    scale = kills / 60
    exact = [
        Kill(place, rng.randint(1, counts[place]))
        for place, share in EXACT.items()
        for _ in range(max(1, round(share * scale)) if kills >= 20 else 1)
    ]
    moments = [Kill("time", rng.uniform(0.02, 1.0) * seconds) for _ in range(max(0, kills - len(exact)))]
    plan = [*exact, *moments]
    rng.shuffle(plan)
    return plan


def summary(runs: list[dict[str, Any]], counts: dict[str, int], seconds: float) -> dict[str, Any]:
    """The results as they are written to disk."""
    places: dict[str, dict[str, int]] = {}
    for run in runs:
        for kill in run["kills"]:
            place = places.setdefault(kill["place"], {"kills": 0, "equal": 0})
            place["kills"] += 1
            place["equal"] += not run["differs"]
    return {
        "what": "sarm train examples/lab.yaml, killed by SIGKILL and resumed, against a run nothing stopped",
        "settings": SMALL,
        "demonstrations": DEMONSTRATIONS,
        "compared": [*killing.FILES, "policy/*", "checkpoints/step-*/manifest.json"],
        "kills": sum(len(run["kills"]) for run in runs),
        "runs": len(runs),
        "equal": sum(not run["differs"] for run in runs),
        "places": {place: places[place] for place in WORDS if place in places},
        "calls_of_a_whole_run": counts,
        "seconds_of_a_whole_run": round(seconds, 1),
        "platform": platform.machine(),
        "each": runs,
    }


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| killed | times | resumed run equal |", "|---|---|---|"]
    for place, entry in found["places"].items():
        lines.append(f"| {WORDS[place]} | {entry['kills']} | {entry['equal']} |")
    lines.append(f"| all | {found['kills']} | {sum(e['equal'] for e in found['places'].values())} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
