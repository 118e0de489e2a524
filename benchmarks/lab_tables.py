"""The tables of `benchmarks/results/lab.json`, the study of three worlds.

    python benchmarks/lab_tables.py

The runs are those of an earlier script; studies of today are `sarm study`, which prints its own tables. In a
world the intervals are over its runs. The last column is over worlds: each world one value, however many runs
it has.
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "lab.json"
MEASURES = (
    ("reward", "Reward model, end minus start, in SDs of the start's answers"),
    ("gold", "Gold, end minus start, in gold SDs"),
    ("kl", "KL to the base policy at the end, nats an answer"),
)


def text(found: dict[str, Any]) -> str:
    """The summary for people, as Markdown."""
    worlds = [str(world) for world in found["worlds"]]
    heads = [*(f"world {w}" for w in worlds), "over worlds"]
    lines = [f"Worlds {found['worlds']}, PPO seeds {found['seeds']}. 95 % t intervals over runs.", ""]
    counts = [
        [arm, *(str(by[w]["gold"]["runs"]) for w in worlds), str(len(worlds))]
        for arm, by in found["arms"].items()
    ]
    lines += [*_table(["arm", *heads], counts), ""]
    for name, title in MEASURES:
        rows = [[arm, *_cells({w: by[w][name] for w in worlds})] for arm, by in found["arms"].items()]
        lines += [title, "", *_table(["arm", *heads], rows), ""]
    rows = [[arm, *_cells({w: by[w] for w in worlds})] for arm, by in found["against_none"].items()]
    other = found["controls_against_random"]
    rows.append(["controls - random", *_cells({w: other[w] for w in worlds})])
    lines += ["Gold at the end against no control, same world and seed, in gold SDs", ""]
    lines += [*_table(["arm", *heads], rows), ""]
    lines += ["Hacking without control: share of runs", ""]
    hacking = [[str(w), *(f"{one:.2f}" for one in by.values())] for w, by in found["hacking"].items()]
    lines += [*_table(["world", *next(iter(found["hacking"].values()), {})], hacking), ""]
    return "\n".join([*lines, "Discovery on fresh audit sets", "", *discovery_table(found["discovery"])])


def discovery_table(found: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row for each threshold; by world the means of recall, precision and called latents."""
    heads = [f"world {one['world']}: {one['harming']} harming, {one['audits']} audit sets" for one in found]
    rows = [
        [f"{by_world[0]['material_sd']:g}",
         *(f"{_plain(one['recall'])}, {_plain(one['precision'])}, {one['called']:.1f}" for one in by_world)]
        for by_world in zip(*(one["thresholds"] for one in found), strict=True)
    ]  # fmt: skip
    return _table(["least effect, SD", *heads], rows)


def _cells(by_world: dict[str, dict[str, Any]]) -> list[str]:
    from sarm_control.study import over_worlds

    over = over_worlds([one["mean"] for one in by_world.values()])._asdict()
    return [*map(_show, by_world.values()), _show(over)]


def _show(value: dict[str, Any]) -> str:
    ends = "" if value["low"] is None else f" [{value['low']:+.2f}, {value['high']:+.2f}]"
    return f"{value['mean']:+.2f}{ends}"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    print(text(json.loads(RESULTS.read_text(encoding="utf-8"))))
