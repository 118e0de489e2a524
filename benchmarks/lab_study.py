"""Does a control found by discovery hold in worlds where the truth is known?

    python benchmarks/lab_study.py --worlds work/worlds/0 work/worlds/1 work/worlds/2

runs every arm in every world with every PPO seed, repeats discovery on fresh audit sets, and prints the
tables of docs/results/lab.md. Runs already in --runs are kept, so that a stopped study goes on.

With --attached the reward model is the worlds' other one, a classifier with a dictionary (sarm lab build
--attached); a further arm, `residual`, adds a penalty on the residual to the suggested controls. Give files
of their own: --runs work/lab_attached.jsonl --out benchmarks/results/lab_attached.json.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

# Set before numpy and torch load: two processes that each use every core slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

RESULTS = Path(__file__).parent / "results" / "lab.json"
ARMS = (
    "none", "controls", "random", "edits", "penalties", "target rates", "human KL", "together",
)  # fmt: skip
RESIDUAL_ARM = "residual"
MAIN = 3
MATERIAL_SD = (0.0, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    """Runs, prints, writes."""
    options = arguments()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        runs = run_all(pool, options)
        count = len(options.worlds)
        further = [options.audits] * count, [options.attached] * count
        discoveries = list(pool.map(discoveries_in, options.worlds, *further))
    from lab_tables import summary, text

    found = summary(runs, discoveries)
    print(text(found))
    values = {"machine": machine(), "made_by": made_by(options.worlds), **found, "runs": runs}
    options.out.write_text(json.dumps(values, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=Path, nargs="+", required=True, help="folders of sarm lab build")
    parser.add_argument("--seeds", type=int, default=5, help="PPO seeds 0..N-1")
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=(*ARMS, RESIDUAL_ARM))
    parser.add_argument("--attached", action="store_true", help="the classifier with a dictionary")
    parser.add_argument("--audits", type=int, default=16, help="audit sets for discovery")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=Path, default=Path("work/lab_runs.jsonl"), help="finished runs")
    parser.add_argument(
        "--finished-only", action="store_true", help="tables of the runs there are; no new ones"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def run_all(pool: ProcessPoolExecutor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The three main arms first, then seed by seed, so that a study stopped early has whole comparisons."""
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in options.runs.open()] if options.runs.is_file() else []
    known = {key(row) for row in done}
    parts = (options.arms[:MAIN], options.arms[MAIN:])
    tasks = [
        {
            "world": str(world),
            "seed": seed,
            "arm": arm,
            "steps": options.steps,
            **({"attached": True} if options.attached else {}),
        }
        for arms in parts
        for seed in range(options.seeds)
        for arm in arms
        for world in options.worlds
    ]
    if options.finished_only:
        tasks = [task for task in tasks if key(task) in known]
    waiting = [pool.submit(run_one, task) for task in tasks if key(task) not in known]
    for count, future in enumerate(as_completed(waiting), start=1):
        row = future.result()
        with options.runs.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        done.append(row)
        print(
            f"{count}/{len(waiting)} {row['world_seed']}/{row['seed']} {row['arm']}: "
            f"reward {row['reward_start']:+.2f} -> {row['reward_end']:+.2f}, "
            f"gold {row['gold_start']:+.2f} -> {row['gold_end']:+.2f}",
            flush=True,
        )
    wanted = {key(task) for task in tasks}
    return sorted((row for row in done if key(row) in wanted), key=key)


def key(row: dict[str, Any]) -> tuple[str, int, str, int, bool]:
    """What tells runs apart."""
    return (row["world"], row["seed"], row["arm"], row["steps"], row.get("attached", False))


def run_one(task: dict[str, Any]) -> dict[str, Any]:
    """One PPO run in a process of its own thread."""
    import torch

    torch.set_num_threads(1)
    from lab_runs import reward_model_of, run_row, variants, with_residual

    from sarm_control.control import Controls
    from sarm_control.discovery.discovery import discover
    from sarm_control.files import sha256_file
    from sarm_control.lab.study.arms import controlled, random_controls, random_match
    from sarm_control.lab.study.study import shipped_audit
    from sarm_control.lab.study.trial import lab_training, run_trial
    from sarm_control.lab.world import World

    world = World.open(Path(task["world"]))
    model = reward_model_of(world, attached=task.get("attached", False))
    pairs = shipped_audit(world, model)
    harms = controlled(discover(pairs))
    # Every run draws other latents: 5 seeds are 5 draws in each world.
    arms = {
        "none": Controls(),
        "random": random_controls(harms, pairs, seed=task["seed"]),
        **variants(harms),
    }
    if model.kind == "attached":
        arms[RESIDUAL_ARM] = with_residual(arms["controls"])
    controls = arms[task["arm"]]
    trial = run_trial(world, model, controls, lab_training(task["seed"], steps=task["steps"]))
    row = {**task, "world_seed": world.seed, "latents": list(controls.latents()), **run_row(trial)}
    if task["arm"] == "random":
        row["match"] = random_match(harms, pairs, seed=task["seed"])._asdict()
    return {**row, "commit": commit(), "world_sha256": sha256_file(world.path / "world.json")}


def discoveries_in(folder: Path, audits: int, attached: bool) -> dict[str, Any]:
    """Discovery on fresh audit sets of one world, at several thresholds of materiality."""
    import torch

    torch.set_num_threads(1)
    from lab_runs import fresh_audit, reward_model_of

    from sarm_control.discovery.discovery import discover
    from sarm_control.lab.study.study import called
    from sarm_control.lab.world import World

    world = World.open(folder)
    model = reward_model_of(world, attached=attached)
    truth = world.attached_truth if attached else world.truth
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(audits):
            found = discover(fresh_audit(world, model, number, Path(temporary)))
            for least in MATERIAL_SD:
                one = called(found, truth, of_sd=least)
                rows.append({"audit": number, "material_sd": least, **one._asdict()})
    return {"world_seed": world.seed, "harming": sorted(truth.harming), "rows": rows}


def machine() -> dict[str, Any]:
    """What these tables were made on; a run's row says which commit made it."""
    import torch
    from processor import processor

    threads = f"{os.cpu_count()} CPU cores, one thread a run"
    return {**processor(), "cores": threads, "torch": torch.__version__}


def made_by(worlds: list[Path]) -> dict[str, Any]:
    """Versions, commit and worlds of the discovery and of these tables; a run's row says its own.

    Rows of a `--runs` file that an older version wrote say nothing about theirs.
    """
    from sarm_control.files import manifest, sha256_file

    record = manifest("lab_study", config={})
    return {
        "commit": commit(),
        "versions": record["versions"],
        "python": record["python"],
        "worlds": {str(world): sha256_file(world / "world.json") for world in worlds},
    }


def commit() -> str | None:
    """The commit of this file's checkout, `+` behind it where files differ; None outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


if __name__ == "__main__":
    main()
