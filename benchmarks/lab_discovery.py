"""Does discovery find what was planted? The same discovery on fresh audit sets of worlds with known truth.

    python benchmarks/lab_discovery.py --worlds work/worlds/0 work/worlds/1 --out work/lab_discovery.json

prints recall and precision by world. The runs of policies in these worlds are a study: `make lab-study`.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Set before numpy and torch load: two processes that each use every core slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

if TYPE_CHECKING:
    from sarm_control.lab import World
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import RewardModel

MATERIAL_SD = (0.0, 0.005, 0.01, 0.02, 0.05)


def main() -> None:
    """Discovers, prints, writes."""
    options = arguments()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        found = list(pool.map(discoveries_in, options.worlds, [options.audits] * len(options.worlds)))
    from lab_tables import discovery_table

    from sarm_control.study.provenance import processor

    summary = [summarise(one) for one in found]
    print("\n".join(discovery_table(summary)))
    values = {"machine": processor(), "discovery": summary, "rows": found}
    options.out.write_text(json.dumps(values, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--worlds", type=Path, nargs="+", required=True, help="folders of sarm lab build")
    parser.add_argument("--audits", type=int, default=16, help="audit sets for discovery")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def discoveries_in(folder: Path, audits: int) -> dict[str, Any]:
    """Discovery on fresh audit sets of one world, at several thresholds of materiality."""
    import torch

    torch.set_num_threads(1)
    from sarm_control.discovery import discover
    from sarm_control.lab import World, called
    from sarm_control.reward_model import RewardModel

    world = World.open(folder)
    model = RewardModel.from_pretrained(str(world.sarm), device="cpu")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(audits):
            found = discover(fresh_audit(world, model, number, Path(temporary)))
            for least in MATERIAL_SD:
                one = called(found, world.truth, of_sd=least)
                rows.append({"audit": number, "material_sd": least, **one._asdict()})
    return {"world_seed": world.seed, "harming": sorted(world.truth.harming), "rows": rows}


def fresh_audit(world: "World", model: "RewardModel", number: int, folder: Path) -> "ScoredRows":
    """Another audit set of the same size, disjoint from every file of the world, scored.

    Args:
        world: where the pairs are from.
        model: its reward model.
        number: of the set; the same number gives the same pairs.
        folder: where the rows are written.
    """
    from sarm_control.data import read_rows
    from sarm_control.files import write_jsonl
    from sarm_control.lab.datasets import audit_rows
    from sarm_control.latents import ScoredRows, score_rows

    size = len(read_rows(world.file("audit"), want={"pair"}))
    pairs = world.fresh_writer().gold_pairs(size, f"audit set {number}")
    write_jsonl(folder / f"audit-{number}.jsonl", audit_rows(pairs))
    rows = read_rows(folder / f"audit-{number}.jsonl", want={"pair"})
    return ScoredRows(rows, score_rows(model, rows))


def summarise(found: dict[str, Any]) -> dict[str, Any]:
    """Recall and precision of one world, means over audit sets."""
    by: dict[float, list[dict[str, Any]]] = defaultdict(list)
    for row in found["rows"]:
        by[row["material_sd"]].append(row)
    return {
        "world": found["world_seed"],
        "harming": len(found["harming"]),
        "audits": len({row["audit"] for row in found["rows"]}),
        "thresholds": [
            {
                "material_sd": least,
                "recall": _mean([r["found"] / r["harming"] for r in rows if r["harming"]]),
                "precision": _mean([1 - r["false"] / len(r["latents"]) for r in rows if r["latents"]]),
                "called": _mean([len(r["latents"]) for r in rows]),
            }
            for least, rows in sorted(by.items())
        ],
    }


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    main()
