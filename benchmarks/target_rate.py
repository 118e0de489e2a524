"""Does a target rate hold a latent's firing rate in the lab, and what do no and fixed charges do?

    python benchmarks/target_rate.py

trains the lab's policy with the flattery latent held at 0.1; then again with a fixed charge equal to the mean
of what the first run charged; without any charge, which says what there was to hold; and with a fixed charge
of half a reference SD; each for five seeds. It prints the firing rate of the last third of the steps and
writes benchmarks/results/target_rate.json. Finished runs are kept in --runs, so a stopped benchmark goes on.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

# Set before numpy and torch load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results" / "target_rate.json"
LATENT, TAU, TARGET, WITHIN = 15, 0.0, 0.1, 0.05
ARMS: dict[str, dict[str, Any] | None] = {
    "target rate": {"target_rate": TARGET},
    "fixed charge": None,  # the mean of what the target rate's run of the seed charged
    "no charge": {"alpha": 0.0},
    "0.5 SD": {"alpha": "0.5sd"},
}


def main() -> None:
    """Runs, prints, writes."""
    options = arguments()
    done = [json.loads(line) for line in options.runs.open()] if options.runs.is_file() else []
    for arm in options.arms:
        for seed in range(options.seeds):
            if not any((row["seed"], row["arm"]) == (seed, arm) for row in done):
                done.append(run_one(seed, arm, options.steps, done))
                options.runs.parent.mkdir(parents=True, exist_ok=True)
                with options.runs.open("a") as stream:
                    stream.write(json.dumps(done[-1]) + "\n")
                print(line(done[-1]), flush=True)
    done = [row for row in done if row["arm"] in options.arms and row["seed"] < options.seeds]
    rows = [summary(row) for row in done]
    print(table(rows))
    settings = {"latent": LATENT, "tau": TAU, "target": TARGET, "steps": options.steps}
    options.out.write_text(json.dumps({**settings, "runs": done, "last_third": rows}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="PPO seeds 0..N-1")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="some arms only")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--runs", type=Path, default=Path("work/target_rate.jsonl"), help="finished runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def run_one(seed: int, arm: str, steps: int, done: list[dict[str, Any]]) -> dict[str, Any]:
    """One run: the rate and the charge of every step."""
    from sarm_control.control import Controls, Penalty
    from sarm_control.lab.study.demo import names_of, run_config
    from sarm_control.training.algorithm.reward import PolicyReward
    from sarm_control.training.run.train import build_trainer

    charge = ARMS[arm]
    if charge is None:
        learnt = next(row for row in done if (row["seed"], row["arm"]) == (seed, "target rate"))
        charge = {"alpha": statistics.mean(learnt["charge"])}
    controls = Controls(penalties=[Penalty(LATENT, TAU, **charge)])
    trainer = build_trainer(run_config(names_of("lab"), controls, seed=seed, steps=steps), Path("unused"))
    trainer.calibrate()
    curve = [trainer.step().metrics for _ in range(steps)]
    rates = [row[f"penalty/{LATENT}/rate"] for row in curve]
    assert isinstance(trainer.reward, PolicyReward)
    [penalty] = trainer.reward.rule.controls.penalties
    charges = [row.get(f"penalty/{LATENT}/alpha", penalty.alpha) for row in curve]
    return {"seed": seed, "arm": arm, "rate": rates, "charge": charges}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """The last third of a run: its mean rate, the farthest step, how much the rate varies by step."""
    last = row["rate"][-(len(row["rate"]) // 3) :]
    return {
        "seed": row["seed"],
        "arm": row["arm"],
        "first": row["rate"][0],
        "mean": statistics.mean(last),
        "farthest": max(last, key=lambda rate: abs(rate - TARGET)),
        "sd": statistics.stdev(last),
        "charge": statistics.mean(row["charge"]),
        "held": abs(statistics.mean(last) - TARGET) <= WITHIN,
    }


def line(row: dict[str, Any]) -> str:
    """A run in one line."""
    found = summary(row)
    return f"seed {row['seed']}, {row['arm']}: last third {found['mean']:.3f}, charge {found['charge']:.4f}"


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of all runs, and a line of how many were held."""
    head = ("seed", "arm", "rate at first", "mean of last third", "farthest step", "SD of steps", "charge")
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for row in rows:
        shown = [f"{row[name]:.3f}" for name in ("first", "mean", "farthest", "sd", "charge")]
        lines.append(" | ".join([str(row["seed"]), row["arm"], *shown]))
    held = {
        arm: [row["held"] for row in rows if row["arm"] == arm] for arm in {row["arm"]: 0 for row in rows}
    }
    counts = (f"{arm}: {sum(of)} of {len(of)} within {WITHIN} of {TARGET}" for arm, of in held.items())
    return "\n".join([*(f"| {text} |" for text in lines), *counts])


if __name__ == "__main__":
    main()
