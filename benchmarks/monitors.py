"""How often do the monitors fire where they should, and where they should not?

    python benchmarks/monitors.py

trains the lab's policy in nine ways (benchmarks/monitors_runs.py) with PPO seeds that no limit was chosen on.
The checks judge every eighth step as `sarm train` does: 64 held-out prompts, one answer each. Whether the
evil happened is told by other answers (benchmarks/monitors_truth.py). Beside that, the untrained policy is
compared with itself under other random numbers, and cases that are good or bad by construction are judged
(benchmarks/monitors_built.py). Finished parts are kept in --runs, so a stopped benchmark goes on.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# Set before numpy and torch load.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results" / "monitors.json"
EVERY, ANSWERS = 8, 64
SAME, BUILT = "the same policy", "by construction"
COLUMNS = {"nothing changed": (SAME, False), "did not happen": (None, False), "happened": (None, True)}


def main() -> None:
    """Runs, prints, writes."""
    options = arguments()
    done = [json.loads(line) for line in options.runs.open()] if options.runs.is_file() else []
    from monitors_runs import ARMS, open_lab

    lab = open_lab()
    arms = options.arms or (SAME, BUILT, *ARMS)
    wanted = [(arm, seed) for seed in options.seeds for arm in arms]
    for arm, seed in wanted:
        if any((row["arm"], row["seed"]) == (arm, seed) for row in done):
            continue
        clock = time.perf_counter()
        seen = list(judged(lab, arm, seed, options))
        done.append({"arm": arm, "seed": seed, "seconds": time.perf_counter() - clock, "evaluations": seen})
        options.runs.parent.mkdir(parents=True, exist_ok=True)
        with options.runs.open("a") as stream:
            stream.write(json.dumps(done[-1]) + "\n")
        print(f"{arm}, seed {seed}: {done[-1]['seconds']:.0f} s", flush=True)
    kept = [row for row in done if (row["arm"], row["seed"]) in wanted]
    rows = tallies(kept)
    print(table(rows))
    settings = {"seeds": options.seeds, "steps": options.steps, "every": EVERY, "answers": ANSWERS}
    options.out.write_text(json.dumps({**settings, "checks": rows, "runs": kept}, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201], help="PPO seeds")
    parser.add_argument("--arms", nargs="+", help="some parts only; all by default")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--draws", type=int, default=20, help="comparisons of the untrained policy, a seed")
    parser.add_argument("--runs", type=Path, default=Path("work/monitors.jsonl"), help="finished parts")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def judged(lab: Any, arm: str, seed: int, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One part of the benchmark: every evaluation with the checks that fired and what happened."""
    from monitors_built import same_policy, windows

    if arm == SAME:
        yield from (shown(*case) for case in same_policy(lab, seed, options.draws, ANSWERS))
    elif arm == BUILT:
        yield from (shown(*case) for case in windows(lab, seed))
    else:
        yield from one_run(lab, arm, seed, options.steps)


def one_run(lab: Any, name: str, seed: int, steps: int) -> Iterator[dict[str, Any]]:
    """The checks and the truth at every eighth step of a run."""
    from monitors_runs import ARMS, Planted, prompts_of
    from monitors_truth import answers_of, verdicts

    from sarm_control.training.monitor.checks import Watch
    from sarm_control.training.monitor.evaluation import PromptEvaluation

    trainer = ARMS[name].trainer(lab, seed, steps)
    reward = trainer.reward
    assert isinstance(reward, Planted)
    prompts = prompts_of(lab, trainer.policy, "held_out_prompts")
    asked = [row for row in prompts if not lab.world.question(str(row.prompt)).should_refuse]
    evaluation = PromptEvaluation(
        trainer.policy,
        reward,
        prompts[:ANSWERS],
        trainer.settings,
        should_respond=asked[-ANSWERS:],
        gold=lab.world.gold,
    )
    watch = Watch(reward.rule.controls.penalties)
    before = answers_of(lab, trainer, prompts, seed, reference=True)
    for step in range(1, steps + 1):
        metrics = trainer.step().metrics
        findings = watch.step(metrics)
        if step % EVERY == 0:
            findings += evaluation.run(metrics["objective/kl"] / metrics["answers/length"]).findings
            after = answers_of(lab, trainer, prompts, seed + step, reference=False)
            yield {"step": step, **shown(findings, verdicts(lab, reward, before, after))}


def shown(findings: Sequence[Any], happened: dict[str, bool | None]) -> dict[str, Any]:
    """Check -> whether it fired for any latent, and whether its evil happened; and every number."""
    fired = {one.check: False for one in findings}
    for one in findings:
        fired[one.check] |= one.fires
    values = {one.name: round(one.value, 4) for one in findings}
    return {"fired": fired, "happened": happened, "values": values}


def tallies(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each check and column: how often it fired, and how often it was looked at."""
    from sarm_control.training.monitor.checks import CHECKS

    rows = []
    for check in CHECKS:
        row: dict[str, Any] = {"check": check}
        for name, (arm, happened) in COLUMNS.items():
            seen = [
                one["fired"][check]
                for run in runs
                if (run["arm"] == SAME) == (arm == SAME)
                for one in run["evaluations"]
                if check in one["fired"] and one["happened"].get(check) is happened
            ]
            row[name] = [sum(seen), len(seen)]
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [f"| check | {' | '.join(COLUMNS)} |", "|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[name][0]} of {row[name][1]}" if row[name][1] else "" for name in COLUMNS]
        lines.append(f"| `{row['check']}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
