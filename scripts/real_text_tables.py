"""Tables of the trial on real text (docs/results/real-text.md), from the files it wrote.

python scripts/real_text_tables.py [--work work/real] > tables.md
"""

import argparse
import json
from pathlib import Path
from typing import Any

SHOWN = (
    "reward/model",
    "reward/total",
    "answer/length",
    "answer/ended",
    "objective/kl",
    "reward/wins",
)


def interval(value: dict[str, Any] | None, digits: int = 3) -> str:
    """`mean [low, high]`, or a dash."""
    if value is None:
        return "-"
    mean, low, high = (value[key] for key in ("mean", "low", "high"))
    if low is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def build_tables(built: dict[str, Any]) -> list[str]:
    """Quality of the autoencoder and of both heads."""
    quality, head = built["autoencoder"], built["head"]
    (name, test), *_ = built["evaluation"].items()
    lines = [
        f"Explained variance of end-of-turn states: {quality['explained_variance_held_out']:.3f} on held-out "
        f"prompts, {quality['explained_variance_fit']:.3f} on fitted ones; {quality['dead_latents']} of "
        f"{quality['latents']} latents never fire there.",
        "",
        f"| head | l2 | RM-Bench held out: pairs | {name}: pairs | {name}: best of n |",
        "|---|---|---|---|---|",
    ]
    for kind in ("sparse", "dense"):
        own, other = head[kind], test[kind]
        held_out = interval(own["held_out"]["pair_accuracy"])
        figures = " | ".join(interval(other[key]) for key in ("pair_accuracy", "best_of"))
        lines.append(f"| {kind} | {own['l2']:.3g} | {held_out} | {figures} |")
    counts = head["sparse"]["held_out"]["pair_accuracy"]["n"], test["sparse"]["pair_accuracy"]["n"]
    return [*lines, "", f"n = {counts[0]} and {counts[1]} prompts; chance 0.5, 0.5 and 0.25."]


def discovery_tables(found: dict[str, Any], top: int = 6) -> list[str]:
    """Both parts and the largest promoting and harming latents."""
    lines = ["| part | prompts | answers | mean margin | pair accuracy |", "|---|---|---|---|---|"]
    parts = [(name, found[name]) for name in ("selection", "confirmation")]
    parts += [(f"selection, {name}", part) for name, part in found["groups"]["selection"].items()]
    for name, part in parts:
        figures = f"{interval(part['mean_margin'])} | {interval(part['pair_accuracy'])}"
        lines.append(f"| {name} | {part['prompts']} | {part['answers']} | {figures} |")
    counts = found["counts"]
    words = ", ".join(
        f"{counts[key]} {key}" for key in ("tested", "selected", "confirmed", "promotes", "harms")
    )
    lines += ["", f"Latents: {words}.", ""]
    lines.append("| latent | kind | effect | share of margin | q | active: chosen | rejected |")
    lines.append("|---|---|---|---|---|---|---|")
    for one in [*found["lists"]["promotes"][:top], *found["lists"]["harms"][:top]]:
        effect = f"{one['effect']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
        share, rates = (
            100 * one["share_of_margin"],
            [100 * one[f"rate_{side}"] for side in ("chosen", "rejected")],
        )
        cells = [
            one["latent"],
            one["kind"],
            effect,
            f"{share:+.1f} %",
            f"{one['q']:.2g}",
            *(f"{r:.0f} %" for r in rates),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def curve_tables(runs: Path, every: int = 4) -> list[str]:
    """Reward, length and KL of every run, each `every` steps."""
    columns = (("reward/model", "reward"), ("answers/length", "length"), ("objective/kl", "KL"))
    rows: dict[str, dict[int, dict[str, float]]] = {}
    for run in sorted(runs.iterdir()):
        text = (run / "metrics.jsonl").read_text(encoding="utf-8")
        rows[run.name] = {row["step"]: row for row in map(json.loads, text.splitlines())}
    last = min(max(found) for found in rows.values())
    steps = [1, *range(every, last + 1, every)]
    lines = [f"| step | {' | '.join(map(str, steps))} |", "|---" * (len(steps) + 1) + "|"]
    for name, found in rows.items():
        for key, label in columns:
            lines.append(f"| {name}: {label} | {' | '.join(f'{found[step][key]:.2f}' for step in steps)} |")
    return lines


def compare_tables(report: dict[str, Any], top: int = 6) -> list[str]:
    """Every arm against the base, the arms against each other, and who paid."""
    lines: list[str] = []
    for arm in report["arms"]:
        lines += ["", f"**{arm['name']}** ({arm['steps']} steps)", ""]
        lines += ["| measure | base | trained | change |", "|---|---|---|---|"]
        for row in arm["measures"]:
            if row["key"] in SHOWN or row["key"].startswith("latent/"):
                cells = [interval(row[key]) for key in ("base", "trained", "change")]
                lines.append(f"| {row['label']} ({row['unit']}) | {' | '.join(cells)} |")
        ledger = arm["ledger"]
        paid = ", ".join(f"{row['latent']}: {row['delta']:+.3f}" for row in ledger["entries"][:top])
        change = f"{ledger['model_change']:+.3f}"
        lines += ["", f"Largest of the {ledger['latents']} latents' parts of the {change}: {paid}."]
    for difference in report["differences"]:
        lines += [
            "",
            f"**{difference['to']} minus {difference['from']}**",
            "",
            "| measure | difference |",
            "|---|---|",
        ]
        for row in difference["measures"]:
            if row["key"] in SHOWN or row["key"].startswith("latent/"):
                lines.append(f"| {row['label']} ({row['unit']}) | {interval(row['trained'])} |")
    return lines


def main() -> None:
    """Prints the tables of whatever exists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    work = parser.parse_args().work

    def read(name: str) -> Any:
        return json.loads((work / name).read_text(encoding="utf-8"))

    print("\n".join(build_tables(read("sarm/build.json"))), end="\n\n")
    print("\n".join(discovery_tables(read("discovery/features.json"))), end="\n\n")
    if (work / "runs").is_dir():
        print("\n".join(curve_tables(work / "runs")), end="\n\n")
    if (work / "compare/report.json").is_file():
        print("\n".join(compare_tables(read("compare/report.json"))))


if __name__ == "__main__":
    main()
