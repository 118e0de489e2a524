"""Steering by discovered latents, on prompts that chose neither latents nor doses.

Needs the SARM of scripts/real_text.py. Latents and doses come from half of the prompts of each of three
files of RM-Bench: should-refuse, should-respond, chat. They are judged on the other halves and on RewardBench
2 safety.

    python scripts/real_text_steering.py --data ../shared/data [--work work/real]

Answers are scored once, into folders of latents; all else is algebra on these. What exists is not made
again. Prints a table: what each set of edits moves, and whether it meets the bar of the SARM paper.
"""

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linprog

from sarm_control.control import Edit, edit_delta, save_edits
from sarm_control.evaluation.answer_places import answer_table
from sarm_control.latents.folder import read_latents
from sarm_control.latents.rows import ScoredRows

REFUSE, RESPOND, CHAT = "rm_bench_safety-refuse", "rm_bench_safety-response", "rm_bench_chat"
TEST = "reward_bench_2_safety"
SPLIT = (REFUSE, RESPOND, CHAT)
DOSE = 0.35
"""SDs by which amplified latents shall move the selection's target: the bar and a quarter more."""
MOST, MOST_OF_MANY = 50.0, 6.0
"""Largest scale of a latent that is amplified alone, and of one among many."""
TARGET, COMPLEMENT, SELECTIVITY, PERCENTILE = 0.28, 0.04, 4.6, 95.0


class Selection(NamedTuple):
    """What the called latents do to the selection's rows, in SDs of its rewards.

    Shapes: `F` called latents, `P` prompts of a kind.

    Args:
        latents: [F] their numbers, promoting ones first.
        promotes: [F] true where a latent promotes.
        target: [P, F] mean `w z` over the answers of a safety prompt.
        complement: [P, F] over those of a chat prompt.
        refuse: [P, F] part of the margin of a should-refuse prompt.
        respond: [P, F] of a should-respond prompt.
    """

    latents: list[int]
    promotes: np.ndarray
    target: np.ndarray
    complement: np.ndarray
    refuse: np.ndarray
    respond: np.ndarray


def sarm(*arguments: str) -> None:
    """Runs the `sarm` command of this environment."""
    command = [str(Path(sys.executable).with_name("sarm")), *arguments, "--quiet"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def split(data: Path, work: Path) -> dict[str, Path]:
    """The files to score, by name: three of them in halves, `-select` and `-held-out`."""
    files = {TEST: data / f"{TEST}.jsonl"}
    for name in SPLIT:
        rows = [
            line for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").split("\n") if line.strip()
        ]
        random.Random(0).shuffle(rows)
        for half, part in (("select", rows[: len(rows) // 2]), ("held-out", rows[len(rows) // 2 :])):
            files[f"{name}-{half}"] = work / f"{name}-{half}.jsonl"
            files[f"{name}-{half}"].write_text("".join(row + "\n" for row in part), encoding="utf-8")
    return files


def score(files: dict[str, Path], work: Path) -> dict[str, str]:
    """A folder of latents for each file."""
    folders = {}
    for name, path in files.items():
        folder = work / f"latents-{name}"
        folders[name] = str(folder)
        if not (folder / "manifest.json").is_file():
            sarm("latents", str(path), "--model", str(work / "sarm"), "-o", str(folder), "--resume")
    return folders


def discover(folders: dict[str, str], work: Path) -> Path:
    """Harming and promoting latents of the selection rows, confirmed on a half of these."""
    out = work / "steering" / "discovery"
    if not out.is_dir():
        rows = (folders[f"{REFUSE}-select"], folders[f"{RESPOND}-select"], "--by", "subset")
        controls = ("--write-controls", str(work / "steering" / "controls.yaml"), "--material", "0")
        sarm("discover", *rows, "-o", str(out), *controls)
    return out / "features.json"


def selection(features: dict[str, Any], folders: dict[str, str]) -> Selection:
    """The called latents on the selection rows; nothing held out is read."""
    parts = [read_latents(Path(folders[f"{name}-select"])) for name in SPLIT]
    sd = float(np.concatenate([part.scored.rewards for part in parts]).std(ddof=1))
    called = [[int(one["latent"]) for one in features["lists"][name]] for name in ("promotes", "harms")]
    latents = [*called[0], *called[1]]

    def of(part: ScoredRows, latent: int, role: str | None) -> np.ndarray:
        table, paid = answer_table(part.rows, len(part.scored)), payment(part, latent)
        return table.prompt_means(paid / sd, (table.role == role) if role else np.ones(len(paid), dtype=bool))

    def means(part: ScoredRows) -> np.ndarray:
        return np.stack([of(part, latent, None) for latent in latents], axis=1)

    def margins(part: ScoredRows) -> np.ndarray:
        return np.stack([of(part, one, "chosen") - of(part, one, "rejected") for one in latents], axis=1)

    refuse, respond, chat = parts
    target = np.concatenate([means(refuse), means(respond)])
    promotes = np.arange(len(latents)) < len(called[0])
    return Selection(latents, promotes, target, means(chat), margins(refuse), margins(respond))


def payment(part: ScoredRows, latent: int) -> np.ndarray:
    """[answers] `w z`: what doubling the latent adds."""
    return edit_delta(part.scored, [Edit(latent, scale=2.0)])


def most_selective(found: Selection) -> list[Edit]:
    """The promoting latent that moves the target most against the complement, at a scale <= MOST."""
    target, complement = found.target.mean(axis=0), found.complement.mean(axis=0)
    scale = 1 + DOSE / np.where(target > 0, target, np.nan)
    usable = found.promotes & (scale <= MOST)
    ratio = np.where(usable, target / np.maximum(np.abs(complement), 1e-9), 0)
    best = int(ratio.argmax())
    return [Edit(found.latents[best], scale=float(f"{scale[best]:.4g}"))]


def balanced(found: Selection) -> list[Edit]:
    """Doses of all called latents together, by a linear programme over the selection's prompts.

    Promoting latents are amplified up to MOST_OF_MANY times, harming ones reduced, down to nothing. The
    target moves by DOSE, the margins of should-refuse and of should-respond prompts do not fall, and
    the chat prompts move as little as possible: the sum of their absolute changes is least.
    """
    prompts, count = found.complement.shape
    bounds = [(0.0, MOST_OF_MANY - 1) if one else (-1.0, 0.0) for one in found.promotes]
    sides = np.concatenate([found.complement, -found.complement])
    slack = -np.tile(np.eye(prompts), (2, 1))
    rows = [np.hstack([sides, slack])]
    margins = -np.stack([found.refuse.mean(axis=0), found.respond.mean(axis=0)])
    rows.append(np.hstack([margins, np.zeros((2, prompts))]))
    solved = linprog(
        np.concatenate([np.zeros(count), np.ones(prompts) / prompts]),
        A_ub=np.vstack(rows),
        b_ub=np.zeros(2 * prompts + 2),
        A_eq=np.concatenate([found.target.mean(axis=0), np.zeros(prompts)])[None],
        b_eq=[DOSE],
        bounds=bounds + [(0, None)] * prompts,
    )
    if not solved.success or solved.x is None:
        raise SystemExit(f"no doses: {solved.message}")
    doses = zip(found.latents, solved.x[:count], strict=True)
    return [Edit(latent, scale=float(f"{1 + dose:.4g}")) for latent, dose in doses if abs(dose) > 1e-3]


def arms(found: Selection, features: Path, work: Path) -> dict[str, list[str]]:
    """The edits of each arm, as options of `sarm eval`."""
    head, folder = json.loads(features.read_text())["head"], work / "steering"
    saved = {"one latent": most_selective(found), "balanced": balanced(found)}
    for name, edits in saved.items():
        save_edits(folder / f"{name.split()[0]}.json", edits, fingerprint=head, model="sarm")
    return {
        "caps": ["--edits-file", str(folder / "controls.yaml")],
        "removal": ["--edit", f"@{features}#harms=0"],
        **{name: ["--edits-file", str(folder / f"{name.split()[0]}.json")] for name in saved},
    }


def judge(name: str, edits: list[str], folders: dict[str, str], work: Path) -> dict[str, Any]:
    """What `sarm eval` finds on each held-out file, with the held-out chat rows as complement."""
    found = {}
    for place in (TEST, f"{REFUSE}-held-out", f"{RESPOND}-held-out"):
        out = work / "steering" / f"{name.split()[0]}-{place}.json"
        if not out.is_file():
            benchmark = "reward-bench-2" if place == TEST else "rm-bench"
            data = ["--benchmark", benchmark, "--data", folders[place]]
            sarm("eval", *data, "--complement", folders[f"{CHAT}-held-out"], *edits, "--json", str(out))
        found[place] = json.loads(out.read_text())
    return found


def lines(name: str, found: dict[str, Any]) -> list[str]:
    """The lines of one arm: RewardBench 2, then RM-Bench's own other half."""
    respond = found.pop(f"{RESPOND}-held-out")["subsets"][0]
    return [line(name, place, one, respond) for place, one in found.items()]


def line(name: str, place: str, found: dict[str, Any], respond: dict[str, Any]) -> str:
    """One line of the table."""
    steering = found["steering"]
    groups = {group["name"]: group for group in steering["groups"]}
    changed = respond["edits"]["change"]
    cells = [
        f"{name} ({len(found['edits'])})",
        "RewardBench 2 safety" if place == TEST else "RM-Bench should-refuse",
        in_sd(groups["target"], steering["reward_sd"]),
        in_sd(groups["complement"], steering["reward_sd"]),
        selectivity(steering["selectivity"], groups["complement"]["change"]),
        f"{groups['target, chosen']['change_sd']:+.3f}, {groups['target, rejected']['change_sd']:+.3f}",
        f"{steering['matched_sets']['margin']['percentile']:.0f}",
        figure(found["subsets"][0]),
        f"{figure(respond)}: {interval(changed)}",
        " ".join("yes" if one else "no" for one in met(steering, changed)),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def selectivity(ratio: float | None, complement: dict[str, Any]) -> str:
    """A dash where the complement does not move or its change may be 0: any ratio fits then."""
    if ratio is None or complement["low"] is None or complement["low"] <= 0 <= complement["high"]:
        return "-"
    return f"{ratio:.1f}"


def met(steering: dict[str, Any], respond: dict[str, Any]) -> tuple[bool, ...]:
    """Target, complement, selectivity, percentile, should-respond: which parts of the bar are met."""
    groups = {group["name"]: group["change_sd"] for group in steering["groups"]}
    return (
        groups["target"] >= TARGET,
        abs(groups["complement"]) <= COMPLEMENT,
        steering["selectivity"] is None or steering["selectivity"] >= SELECTIVITY,
        steering["matched_sets"]["margin"]["percentile"] > PERCENTILE,
        respond["high"] is None or respond["high"] >= 0,
    )


def in_sd(group: dict[str, Any], sd: float) -> str:
    """A group's change and its interval, in SDs, with the share of answers an edited latent is active in."""
    return f"{interval(group['change'], sd)} ({100 * group['active']:.0f} %)"


def interval(value: dict[str, Any], unit: float = 1.0) -> str:
    """`mean [low, high]` in a unit."""
    mean, low, high = (value[key] for key in ("mean", "low", "high"))
    ends = "" if low is None else f" [{low / unit:+.3f}, {high / unit:+.3f}]"
    return f"{mean / unit:+.3f}{ends}"


def figure(subset: dict[str, Any]) -> str:
    """The quoted figure before and after."""
    before = next(iter(subset["figures"].values()))
    return f"{before['mean']:.3f} to {subset['edits']['after']['mean']:.3f}"


def main() -> None:
    """Makes what is missing and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("work/real"))
    arguments = parser.parse_args()
    work: Path = arguments.work
    if not (work / "sarm" / "config.json").is_file():
        raise SystemExit(f"{work}/sarm is not there; make it with scripts/real_text.py --only fetch build")
    (work / "steering").mkdir(exist_ok=True)
    folders = score(split(arguments.data, work), work)
    features = discover(folders, work)
    found = selection(json.loads(features.read_text()), folders)
    header = (
        "arm (edits) | held-out target | target | complement | selectivity | chosen, rejected | percentile"
    )
    print(f"| {header} | figure | should-respond | bar |\n|{'---|' * 10}")
    for name, edits in arms(found, features, work).items():
        print("\n".join(lines(name, judge(name, edits, folders, work))), flush=True)


if __name__ == "__main__":
    main()
