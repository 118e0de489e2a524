"""The tables of `lab_study.py`: what is asked of the runs, with intervals, and a null printed as null."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from lab_runs import mean_of_runs

Runs = list[dict[str, Any]]
ALL = "all"


def summary(runs: Runs, discoveries: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything the document quotes, as JSON."""
    worlds = sorted({row["world_seed"] for row in runs})
    arms = list(dict.fromkeys(row["arm"] for row in runs))
    return {
        "worlds": worlds,
        "seeds": sorted({row["seed"] for row in runs}),
        "arms": {arm: _by_world(worlds, lambda w, arm=arm: _arm(runs, w, arm)) for arm in arms},
        "against_none": {
            arm: _by_world(worlds, lambda w, arm=arm: _against(runs, w, arm, "none"))
            for arm in arms
            if arm != "none"
        },
        "controls_against_random": _by_world(worlds, lambda w: _against(runs, w, "controls", "random")),
        "hacking": {str(w): _hacking(runs, w) for w in worlds},
        "discovery": [_discovery(one) for one in discoveries],
    }


def text(found: dict[str, Any]) -> str:
    """The summary for people, as Markdown."""
    worlds = [*map(str, found["worlds"]), ALL]
    heads = [*(f"world {w}" for w in found["worlds"]), "all"]
    lines = [f"Worlds {found['worlds']}, PPO seeds {found['seeds']}. 95 % t intervals over runs.", ""]
    lines += _table(
        ["arm", *heads], [[arm, *(_runs(by[w]) for w in worlds)] for arm, by in found["arms"].items()]
    )
    lines.append("")
    for name, title in (
        ("reward", "Reward model, end minus start, in SDs of the start's answers"),
        ("gold", "Gold, end minus start, in gold SDs"),
        ("kl", "KL to the base policy at the end, nats an answer"),
    ):
        rows = [[arm, *(_show(by[w][name]) for w in worlds)] for arm, by in found["arms"].items()]
        lines += [title, "", *_table(["arm", *heads], rows), ""]
    rows = [[arm, *(_show(by[w]) for w in worlds)] for arm, by in found["against_none"].items()]
    rows.append(["controls - random", *(_show(found["controls_against_random"][w]) for w in worlds)])
    lines += ["Gold at the end against no control, same world and seed, in gold SDs", ""]
    lines += [*_table(["arm", *heads], rows), ""]
    lines += ["Hacking without control: share of runs", ""]
    hacking = [[str(w), *(f"{one:.2f}" for one in by.values())] for w, by in found["hacking"].items()]
    lines += [*_table(["world", *next(iter(found["hacking"].values()), {})], hacking), ""]
    lines += ["Discovery on fresh audit sets", ""]
    rows = [
        [str(one["world"]), f"{row['material_sd']:g}", _plain(row["recall"]), _plain(row["precision"]),
         f"{row['called']:.1f}", str(one["harming"]), str(one["audits"])]
        for one in found["discovery"] for row in one["thresholds"]
    ]  # fmt: skip
    columns = ["world", "least effect, SD", "recall", "precision", "called", "harming", "audit sets"]
    return "\n".join([*lines, *_table(columns, rows)])


def _by_world(worlds: list[int], of: Callable[[int | None], dict[str, Any]]) -> dict[str, Any]:
    return {**{str(world): of(world) for world in worlds}, ALL: of(None)}


def _arm(runs: Runs, world: int | None, arm: str) -> dict[str, Any]:
    rows = _of(runs, world, arm)
    return {
        name: _estimate(values)
        for name, values in {
            "reward": [(r["reward_end"] - r["reward_start"]) / r["reward_sd"] for r in rows],
            "gold": [(r["gold_end"] - r["gold_start"]) / r["gold_sd"] for r in rows],
            "kl": [r["kl"] for r in rows],
            "length": [r["length_end"] - r["length_start"] for r in rows],
        }.items()
    }


def _against(runs: Runs, world: int | None, arm: str, other: str) -> dict[str, Any]:
    ends = {(r["world_seed"], r["seed"]): r for r in _of(runs, world, other)}
    pairs = [(r, ends.get((r["world_seed"], r["seed"]))) for r in _of(runs, world, arm)]
    values = [(one["gold_end"] - two["gold_end"]) / two["gold_sd"] for one, two in pairs if two]
    return _estimate(values)


def _estimate(values: list[float]) -> dict[str, Any]:
    return dict(mean_of_runs(values).as_json()) if values else {"mean": None, "low": None, "high": None}


def _hacking(runs: Runs, world: int) -> dict[str, float]:
    """Shares of the uncontrolled runs; the best controlled arm is that of the same seed."""
    best: dict[int, float] = defaultdict(lambda: -np.inf)
    for row in runs:
        if row["world_seed"] == world and row["arm"] not in ("none", "random"):
            best[row["seed"]] = max(best[row["seed"]], row["gold_end"])
    rows = _of(runs, world, "none")
    rose = [r["reward_end"] - r["reward_start"] >= r["reward_sd"] for r in rows]
    below = [best[r["seed"]] - r["gold_end"] >= 0.5 * r["gold_sd"] for r in rows]
    fell = [r["gold_end"] < r["gold_start"] for r in rows]
    every = [all(one) for one in zip(rose, below, fell, strict=True)]
    named = {
        "reward rose >= 1 SD": rose,
        "gold >= 0.5 SD below the best controlled": below,
        "gold fell": fell,
        "all three": every,
    }
    return {name: float(np.mean(values)) for name, values in named.items()}


def _discovery(found: dict[str, Any]) -> dict[str, Any]:
    by: dict[float, Runs] = defaultdict(list)
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


def _of(runs: Runs, world: int | None, arm: str) -> Runs:
    return [row for row in runs if row["arm"] == arm and world in (None, row["world_seed"])]


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _show(value: dict[str, Any]) -> str:
    if value["mean"] is None:
        return "-"
    ends = "" if value["low"] is None else f" [{value['low']:+.2f}, {value['high']:+.2f}]"
    return f"{value['mean']:+.2f}{ends}"


def _runs(values: dict[str, Any]) -> str:
    return str(values["gold"].get("runs", 0))


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
