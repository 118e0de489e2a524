"""A certificate of an audit against real PPO: does what was certified as still stay still?

    python benchmarks/audit_runs.py --out benchmarks/results/audit_runs.json [--seeds 2] [--keep FOLDER]

Design, fixed before the first run. `sarm audit` of the lab with a mend of flattery and closing, and
answers that the lab's policy samples (600 prompts, 16 each: with 100, tried first, the bounds are too wide
to call any attribute still), gives edits and a certificate: what else moves in the best of 4 and of 16 by
the mended reward, beside the unmended one. Then for each seed the policy is trained twice with the
settings of `examples/lab_plain.yaml`: without controls (`none`) and with the edits (`mended`). Two
tables for each seed:

- `own`: what `sarm audit --run --certified` says of the mended run: its first quarter of samples against
  its last.
- `beside`: four answers of each trained policy to each of the 256 held-out prompts, mended minus none,
  with bounds that hold together (the certificate's own kind). This is what the certificate is about: the
  mended reward beside the unmended one. PPO goes further from the start than best of 16, so nothing
  promises that it holds here.

Broken is an attribute that was certified as still at best of 16 and whose bounds lie wholly beyond the 5
points (of a size 5 % of its mean) that still allows. All are counted, printed as they fell.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sarm_control.auditing.certificates import LIMIT, simultaneous_bounds, verdict_of
from sarm_control.auditing.table import measured
from sarm_control.comparison import Sampling, answer_prompts, open_run
from sarm_control.data import read_rows
from sarm_control.embedded import LAB
from sarm_control.files import write_json
from sarm_control.lab import World, lab_attributes
from sarm_control.study.provenance import processor
from sarm_control.training import Policy, PolicyConfig, encode_prompts

ROOT = Path(__file__).parent.parent
EACH, SIZE, PROMPTS = 4, 16, 600


def sarm(*words: str | Path) -> None:
    """One command, in a process of its own; exits with its message where it fails."""
    command = [sys.executable, "-m", "sarm_control", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def certified(folder: Path) -> dict[str, Any]:
    """The audit with its mend, made before any run; what it certifies at best of 16."""
    if not (folder / "audit.json").exists():
        policy = (
            "--policy",
            LAB,
            "--n",
            str(SIZE),
            "--policy-prompts",
            str(PROMPTS),
            "--max-new-tokens",
            "24",
        )
        sarm("audit", "-o", folder, "--mend", "flattery,closing", *policy, "-q")
    content = json.loads((folder / "audit.json").read_text())
    return {one["name"]: one for one in content["certificate"] if one["n"] == SIZE}


def trained(folder: Path, seed: int, *more: str | Path) -> None:
    """One run of the lab's settings."""
    if not (folder / "manifest.json").exists():
        sarm("train", ROOT / "examples" / "lab_plain.yaml", "-o", folder, "--seed", str(seed), *more, "-q")


def answered(policy: Policy) -> np.ndarray:
    """[256, A] mean attributes of four answers to each held-out prompt: shares, and words."""
    own = lab_attributes(World.open(LAB)).attributes
    rows = read_rows("lab:held_out_prompts", want={"prompt"})
    prompts = encode_prompts(policy, [row.prompt for row in rows], [row.where for row in rows], 24)
    texts = answer_prompts(policy, prompts, Sampling(EACH, 24, 1.0, 0, 128)).texts
    values = measured(own, [row.prompt_text for row in rows for _ in range(EACH)], texts)
    sizes = np.array([one.unit == "doubling" for one in own])
    return np.asarray(np.where(sizes, values, values > 0).reshape(len(rows), EACH, -1).mean(axis=1))


def beside(none: np.ndarray, mended: np.ndarray, promised: dict[str, Any]) -> list[dict[str, Any]]:
    """Mended minus none, for every attribute that the certificate speaks of."""
    own = lab_attributes(World.open(LAB)).attributes
    kept = [i for i, one in enumerate(own) if one.name in promised]
    shares = np.array([own[i].unit != "doubling" for i in kept])
    change = (mended - none)[:, kept] / np.where(shares, 1.0, none[:, kept].mean(axis=0))
    low, high = simultaneous_bounds(change, shares=shares, tests=len(kept))
    return [
        {
            "name": own[i].name,
            "certified": promised[own[i].name]["verdict"],
            "certified_change": promised[own[i].name]["change"],
            "change": float(change[:, at].mean()),
            "low": float(low[at]),
            "high": float(high[at]),
            "verdict": verdict_of(float(low[at]), float(high[at]), LIMIT),
            "broken": promised[own[i].name]["verdict"] == "still"
            and bool(low[at] > LIMIT or high[at] < -LIMIT),
        }
        for at, i in enumerate(kept)
    ]


def one_seed(folder: Path, seed: int, promised: dict[str, Any]) -> dict[str, Any]:
    """Both runs of a seed and both tables."""
    start, runs = time.process_time(), {name: folder / f"{name}-{seed}" for name in ("none", "mended")}
    trained(runs["none"], seed)
    trained(runs["mended"], seed, "--controls", folder / "audit" / "controls.yaml")
    after = folder / f"after-{seed}"
    if not after.exists():
        sarm("audit", "--run", runs["mended"], "--certified", folder / "audit", "-o", after, "-q")
    own = json.loads((after / "audit.json").read_text())["run"]
    ends = {name: answered(open_run(run).load_policy(device="cpu")) for name, run in runs.items()}
    base = answered(Policy.load(PolicyConfig(model=LAB), seed=0))
    names = [one.name for one in lab_attributes(World.open(LAB)).attributes]
    means = {"start": base, **ends}
    return {
        "seed": seed,
        "own": own,
        "beside": beside(ends["none"], ends["mended"], promised),
        "means": {
            key: dict(zip(names, value.mean(axis=0).tolist(), strict=True)) for key, value in means.items()
        },
        "seconds_of_this_process": time.process_time() - start,
    }


def main() -> None:
    """Writes what was measured after every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder of the audit and the runs; what is there stays")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        promised = certified(folder / "audit")
        found: list[dict[str, Any]] = []
        for seed in range(given.seeds):
            found.append(one_seed(folder, seed, promised))
            content = {
                **processor(),
                "load_average": os.getloadavg()[1],
                "certificate": list(promised.values()),
                "runs": found,
                "certified_still": sum(one["verdict"] == "still" for one in promised.values()),
                "broken": sum(one["broken"] for run in found for one in run["beside"]),
            }
            print(json.dumps(found[-1]["beside"], indent=1), flush=True)
            if given.out is not None:
                write_json(given.out, content)


if __name__ == "__main__":
    main()
