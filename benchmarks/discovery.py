"""Bars of the discovery on planted data, and its speed at the size of a released SARM.

Planted: sparse latents with known effects. Answers to a prompt share much of what fires, latents fire
at rates from 2 % to always, and twelve latents fire more on one side, with d_z from about 0.27 to 0.7
over prompts (SCIENCE.md, "Discovery"). Three bars:

    recall      of the planted latents on 400 + 400 prompts       >= 0.9
    false       runs of 200 with permuted labels that call any latent  <= 5 %
    sign        agreement of the two halves' effects               >= 90 %

Speed: 65,536 latents, 10,000 prompts with a chosen and a rejected answer each, k = 192, of which
130 latents are always on, 20 are of 500 that fire often and 42 of all the others, so that thousands
are active in enough prompts to be tested. The latents are written to disk and a fresh process with
one thread reads them and makes the whole discovery: tests, corrections, intervals, matched sets,
competing selections, equal length. Bars: 60 s and 4 GB on 2 cores. Seconds are those of the clock;
processor seconds do not grow when the machine is busy. Linux only.

    python benchmarks/discovery.py [--runs 200] [--json benchmarks/results/discovery.json]
    python benchmarks/discovery.py --speed [--rejected 3] [--json benchmarks/results/discovery.json]
    python benchmarks/discovery.py --nulls [--json benchmarks/results/discovery.json]

With `--rejected 3` every prompt has three rejected answers. The third is `discovery_nulls.py`: what is
called where a prompt's answers are exchangeable, at equal and unequal sides. Results are kept
side by side in the same file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.sparse import csr_array, diags_array, vstack

from sarm_control.discovery.effects.effects import enough_draws, latents_to_test, replicated_effects
from sarm_control.discovery.effects.kinds import direction
from sarm_control.discovery.pairs.margins import PairLatents, margin_contributions, pair_latents
from sarm_control.statistics.multiplicity import benjamini_hochberg
from sarm_control.statistics.sign_flips import sign_flip_test

PROMPTS, ANSWERS, LATENTS = 800, 2, 400
PLANTED = 12
KEPT, ALWAYS_ON, OFTEN, OFTEN_AT_ONCE = 192, 130, 500, 20


def planted_world(seed: int) -> tuple[PairLatents, set[int]]:
    """Latents of which twelve fire more on chosen or on rejected answers."""
    generator = np.random.default_rng(seed)
    rate = np.clip(generator.beta(0.4, 2.0, LATENTS), 0.02, 1.0)
    head = generator.normal(0, 0.01, LATENTS)
    planted = generator.choice(np.flatnonzero((rate > 0.1) & (rate < 0.5)), PLANTED, replace=False)
    lift = np.zeros(LATENTS)
    lift[planted] = generator.choice([-1, 1], PLANTED) * np.linspace(0.2, 0.4, PLANTED)
    head[planted] = generator.choice([-1, 1], PLANTED) * 0.02
    of_prompt = generator.random((PROMPTS, LATENTS))
    sides = []
    for sign in (1, -1):
        own = generator.random((PROMPTS * ANSWERS, LATENTS))
        shared = generator.random(own.shape) < 0.5
        uniform = np.where(shared, np.repeat(of_prompt, ANSWERS, axis=0), own)
        fires = uniform < np.clip(rate + sign * lift / 2, 0, 1)
        sides.append(csr_array(np.where(fires, generator.exponential(1.0, own.shape) + 0.1, 0.0)))
    ids = np.repeat(np.arange(PROMPTS), ANSWERS)
    return pair_latents(sides[0], sides[1], ids, ids, head), {int(latent) for latent in planted}


def halves(pairs: PairLatents) -> tuple[PairLatents, PairLatents]:
    """The first and the second half of the prompts."""
    middle = pairs.prompts // 2
    return pairs.take_prompts(range(middle)), pairs.take_prompts(range(middle, pairs.prompts))


def permuted(pairs: PairLatents, seed: int) -> PairLatents:
    """Each prompt's preference decided by a coin."""
    turned = np.random.default_rng(seed).random(pairs.prompts) < 0.5
    good, bad = turned[pairs.chosen_prompt], turned[pairs.rejected_prompt]
    return pair_latents(
        vstack([pairs.chosen[~good], pairs.rejected[bad]]),
        vstack([pairs.rejected[~bad], pairs.chosen[good]]),
        np.concatenate([pairs.chosen_prompt[~good], pairs.rejected_prompt[bad]]),
        np.concatenate([pairs.rejected_prompt[~bad], pairs.chosen_prompt[good]]),
        pairs.head,
    )


def effects(pairs: PairLatents) -> np.ndarray:
    """[L] mean contributions."""
    return np.asarray(margin_contributions(pairs).sum(axis=0)).ravel() / pairs.prompts


def standardised(pairs: PairLatents, latents: set[int]) -> dict[int, float]:
    """|d_z| of each latent over all prompts."""
    columns = margin_contributions(pairs)[:, sorted(latents)].toarray()
    sizes = np.abs(columns.mean(axis=0)) / columns.std(axis=0, ddof=1)
    return dict(zip(sorted(latents), sizes.tolist(), strict=True))


def bars(runs: int, worlds: int = 5) -> dict[str, object]:
    """Recall and sign agreement over a few worlds, false discoveries over permuted labels."""
    found = 0.0
    false: list[float] = []
    agree: list[float] = []
    every: list[float] = []
    for seed in range(worlds):
        pairs, planted = planted_world(seed)
        first, second = halves(pairs)
        table = replicated_effects(first, second, seed=seed)
        sizes = standardised(pairs, planted)
        every += sizes.values()
        strong = {latent for latent, size in sizes.items() if size >= 0.3}
        rows = {row["latent"]: row for row in table.rows()}
        called = {latent for latent, row in rows.items() if direction(row["kind"]) is not None}
        found += len(called & strong) / len(strong)
        false.append(len(called - planted) / max(len(called), 1))
        both = [np.sign(effects(part)[list(planted)]) for part in (first, second)]
        agree.append(float((both[0] == both[1]).mean()))
    return {
        "worlds": worlds,
        "planted_d_z": [min(every), max(every)],
        "recall_at_d_z_0.3": found / worlds,
        "false_share_of_called": float(np.mean(false)),
        "sign_agreement_of_halves": float(np.mean(agree)),
        **null_runs(runs),
        **lab_bars(),
    }


def null_runs(runs: int) -> dict[str, object]:
    """Runs with permuted labels in which a latent is called, by the whole procedure and by one test alone.

    Where nothing is true, a run's false discovery proportion is 1 as soon as it calls anything. One
    round of tests alone should then call something in 5 % of the runs: Benjamini-Hochberg is exact for
    independent tests, and these latents hardly depend on each other. It is tried five times as often.
    """
    pairs, _ = planted_world(0)
    named = 0
    for seed in range(runs):
        kinds = replicated_effects(*halves(permuted(pairs, seed)), seed=seed)["kind"]
        named += any(direction(kind) is not None for kind in kinds)
    selected = sum(selects(pairs, seed) for seed in range(5 * runs))
    ends = stats.binomtest(selected, 5 * runs).proportion_ci()
    return {
        "permuted_runs": runs,
        "permuted_false_discovery_rate": named / runs,
        "permuted_runs_of_one_test": 5 * runs,
        "permuted_false_discovery_rate_of_one_test": selected / (5 * runs),
        "its_95_interval": [float(ends.low), float(ends.high)],
    }


def selects(pairs: PairLatents, seed: int) -> bool:
    """Whether the tests of one set of prompts call a latent when a coin decides each prompt's preference.

    Turning a prompt's preference turns the sign of its contributions: the same as `permuted`.
    """
    latents = latents_to_test(pairs, 10)
    signs = np.where(np.random.default_rng(seed).random(pairs.prompts) < 0.5, -1.0, 1.0)
    columns = diags_array(signs) @ margin_contributions(pairs)[:, latents]
    p = sign_flip_test(columns, draws=enough_draws(len(latents), 0.05, pairs.prompts), seed=seed)
    return bool((benjamini_hochberg(p) <= 0.05).any())


def lab_bars() -> dict[str, object]:
    """The embedded world's own audit set, judged by what its latents do on pairs without number."""
    from sarm_control.discovery.discovery import discover
    from sarm_control.lab.study.study import shipped_audit
    from sarm_control.lab.world import World
    from sarm_control.reward_model import RewardModel

    world = World.open("lab")
    truth = world.truth
    found = discover(shipped_audit(world, RewardModel.from_pretrained("lab")))
    called = {one.latent: name for name, items in found.lists.items() for one in items}
    strong = np.flatnonzero(np.abs(truth.d_z) >= 0.3).tolist()
    sure = np.abs(truth.effect) > 2 * truth.error
    wrong = [
        latent
        for latent, name in called.items()
        if not sure[latent] or (truth.effect[latent] > 0) != (name == "promotes")
    ]
    return {
        "lab_latents_at_d_z_0.3": len(strong),
        "lab_recall_at_d_z_0.3": len(called.keys() & set(strong)) / len(strong),
        "lab_called": len(called),
        "lab_called_wrongly": len(wrong),
    }


def stored_latents(path: Path, prompts: int, latents: int, rejected: int) -> None:
    """Answers of a TopK autoencoder as arrays: always on, often, and rarely firing latents; 20 effects."""
    generator = np.random.default_rng(0)
    answers = (1 + rejected) * prompts
    rare = KEPT - ALWAYS_ON - OFTEN_AT_ONCE
    often_rates = generator.dirichlet(np.full(OFTEN, 0.5)) * OFTEN_AT_ONCE
    indices, values = [], []
    for row in range(answers):
        lift = 1.0 + (row % (1 + rejected) == 0)
        rates = often_rates.copy()
        rates[:20] *= lift
        often = ALWAYS_ON + np.flatnonzero(generator.random(OFTEN) < rates)
        others = ALWAYS_ON + OFTEN + generator.choice(latents - ALWAYS_ON - OFTEN, rare, replace=False)
        own = np.concatenate([np.arange(ALWAYS_ON), often, np.sort(others)])
        indices.append(own)
        values.append(generator.exponential(1.0, len(own)).astype(np.float32) + 0.1)
    indptr = np.concatenate([[0], np.cumsum([len(own) for own in indices])])
    head = generator.normal(0, 1e-3, latents).astype(np.float32)
    lengths = generator.integers(20, 400, answers)
    np.savez(
        path, indptr=indptr, indices=np.concatenate(indices).astype(np.int32),
        values=np.concatenate(values), head=head, lengths=lengths, rejected=rejected,
    )  # fmt: skip


def discover_stored(path: Path) -> dict[str, float]:
    """Reads stored latents and makes the whole discovery; seconds of each."""
    from sarm_control.data.rows import Row
    from sarm_control.discovery.discovery import discover
    from sarm_control.latents.rows import ScoredRows
    from sarm_control.reward_model.scored import Scored
    from sarm_control.reward_model.sparse import SparseLatents

    start, processor = time.perf_counter(), time.process_time()
    stored = np.load(path)
    latents = SparseLatents(
        stored["indptr"].astype(np.int64), stored["indices"], stored["values"], len(stored["head"])
    )
    count = len(latents)
    scored = Scored(
        latents.dot(stored["head"]), latents, stored["head"], np.zeros(count, np.int64),
        np.ones(count, bool), stored["lengths"].astype(np.int64), "benchmark",
    )  # fmt: skip
    bad = range(int(stored["rejected"]))
    rows = [
        Row(
            path,
            p,
            {},
            "pair",
            f"prompt {p}",
            chosen=(f"good {p}",),
            rejected=tuple(f"bad {p} {j}" for j in bad),
        )
        for p in range(count // (1 + len(bad)))
    ]
    read = time.perf_counter()
    found = discover(ScoredRows(rows, scored))
    done = time.perf_counter()
    return {
        "read_seconds": read - start,
        "discover_seconds": done - read,
        "seconds": done - start,
        "processor_seconds": time.process_time() - processor,
        "peak_gb": peak_bytes() / 1e9,
        "tested": len(found.table),
        "confirmed": found.counts["confirmed"],
    }


def peak_bytes() -> int:
    """Peak resident bytes of this process (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def speed(prompts: int, latents: int, rejected: int) -> dict[str, object]:
    """The discovery in a fresh process, on latents it reads from disk."""
    from machine import Watch, machine

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "latents.npz"
        stored_latents(path, prompts, latents, rejected)
        command = [sys.executable, __file__, "--stored", str(path)]
        alone = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
        watch = Watch()
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=alone)
        others = watch.others()
        result = json.loads(ran.stdout)
    return {
        "machine": {**machine(others), "threads": 1},
        "prompts": prompts,
        "latents": latents,
        "rejected": rejected,
        "kept": KEPT,
        **result,
    }


def main() -> None:
    """Measures, prints a table, and keeps the result beside what the file has already."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--nulls", action="store_true")
    parser.add_argument("--rejected", type=int, default=1)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--latents", type=int, default=65_536)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--stored", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stored:
        print(json.dumps(discover_stored(arguments.stored)))
        return
    if arguments.nulls:
        import discovery_nulls

        name, result = "nulls", discovery_nulls.nulls()
        print(discovery_nulls.tables(result))
    else:
        one_to_one = arguments.rejected == 1
        name = ("speed" if one_to_one else f"speed_1v{arguments.rejected}") if arguments.speed else "bars"
        sizes = arguments.prompts, arguments.latents, arguments.rejected
        result = speed(*sizes) if arguments.speed else bars(arguments.runs)
        print("| measured | value |\n|---|---|")
        for key, value in result.items():
            print(f"| {key} | {value if not isinstance(value, float) else f'{value:.3g}'} |")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        kept = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps({**kept, name: result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
