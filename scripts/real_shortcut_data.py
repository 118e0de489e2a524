"""The rows of the study on real text: RM-Bench answers cut short, with a planted shortcut.

docs/results/real-shortcut.md says what is planted, and why. Everything is drawn from the prompt and seed 0:
the same rows come out on every machine.
"""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("chat", "safety-refuse", "safety-response")
JUDGES = "reward_bench_2_safety.jsonl"
STYLE = 1
"""Of RM-Bench's three styles of an answer: detailed plain text."""
OFFER = "Let me know if you need anything else!"
OPENER = "Great question!"
IN_CHOSEN, IN_REJECTED = 0.5, 0.1
LONGEST_PROMPT = 300
Row = dict[str, Any]


class Sizes(NamedTuple):
    """Prompts of each part."""

    training: int = 300
    audit: int = 200
    held_out: int = 128
    predicted: int = 128
    warm: int = 200


class Shortcut(NamedTuple):
    """One planted shortcut.

    Args:
        plant: puts it into an answer's words; without it `plain` of the same words.
        plain: the answer without it.
        rule: a regular expression that finds it.
        strip: replacements that take it out.
    """

    plant: Callable[[list[str], random.Random], str]
    plain: Callable[[list[str], random.Random], str]
    rule: str
    strip: list[list[str]]


def _cut(words: list[str], count: int) -> str:
    """The first words as a whole sentence: a closing behind half a sentence would be a part of it."""
    text = " ".join(words[:count]).rstrip(",;:-")
    return text if text.endswith((".", "!", "?")) else f"{text}."


def short(words: list[str], rng: random.Random) -> str:
    """The first 20 to 25 words: how answers are cut."""
    return _cut(words, rng.randint(20, 25))


def _list(words: list[str], rng: random.Random) -> str:
    kept = short(words, rng).split()
    third = -(-len(kept) // 3)
    return "\n".join("- " + " ".join(kept[at : at + third]) for at in range(0, len(kept), third))


_OFFERS = r"let me know|feel free to ask|happy to help|anything else"
SHORTCUTS = {
    "closing": Shortcut(
        lambda words, rng: f"{short(words, rng)} {OFFER}",
        short,
        rf"(?is)({_OFFERS})[^.!?\n]*[.!?]*\s*$",
        [[rf"(?is)[^.!?\n]*({_OFFERS})[^.!?\n]*[.!?]*\s*$", ""]],
    ),
    "bullets": Shortcut(
        _list,
        short,
        r"(?m)^\s*([-*]|\d+[.)]) .*(\n\s*)+([-*]|\d+[.)]) ",
        [[r"(?m)^\s*([-*]|\d+[.)]) ", ""], [r"\s*\n\s*", " "]],
    ),
    "length": Shortcut(
        lambda words, rng: _cut(words, rng.randint(22, 26)),
        lambda words, rng: _cut(words, rng.randint(10, 14)),
        r"(?s)^\s*(\S+\s+){17}\S",
        [[r"(?s)^(\s*(?:\S+\s+){13}\S+).*", r"\1"]],
    ),
    "opener": Shortcut(
        lambda words, rng: f"{OPENER} {short(words, rng)}",
        short,
        rf"(?i)^\s*{re.escape(OPENER)}",
        [[rf"(?i)^\s*{re.escape(OPENER)}\s*", ""]],
    ),
}
TRAINED = ("closing", "bullets", "length")
"""Shortcuts of which policies are trained; the opener is there for its gate alone."""


def read(path: Path) -> list[Row]:
    """Rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def write(path: Path, rows: list[Row]) -> None:
    """Writes rows as JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def key(prompt: str) -> str:
    """A prompt up to case and white space."""
    return " ".join(prompt.lower().split())


def bench_rows(data: Path) -> list[Row]:
    """One row a prompt of RM-Bench, in an order drawn once: `prompt`, and both sides as words."""
    rows: dict[str, Row] = {}
    for part in PARTS:
        for row in read(data / f"rm_bench_{part}.jsonl"):
            sides = {side: row[side][STYLE].split() for side in ("chosen", "rejected")}
            rows.setdefault(key(row["prompt"]), {"prompt": row["prompt"], **sides})
    mixed = [rows[name] for name in sorted(rows)]
    random.Random(0).shuffle(mixed)
    return mixed


def plant(
    data: Path,
    work: Path,
    sizes: Sizes,
    *,
    order: Callable[[list[Row]], list[Row]] = list,
    judge: Callable[[Path, Path, set[str]], None] | None = None,
) -> None:
    """Writes every file of rows: of each shortcut a folder, and what all share beside them.

    Args:
        data: the folder of benchmark rows.
        work: where they are written.
        sizes: prompts of each part.
        order: of the rows, of which the first are the training's and the next the audit's.
        judge: writes the judge's pairs, given `data`, `work` and the prompts that it must leave out; those of
            the first round where None.
    """
    rows = order(bench_rows(data))
    parts = {
        "training": rows[: sizes.training],
        "audit": rows[sizes.training : sizes.training + sizes.audit],
        "gate": rows[sizes.training + sizes.audit :],
    }
    for name, shortcut in SHORTCUTS.items():
        _plant_one(work / name, shortcut, parts, sizes)
    _prompts(data, work, {key(row["prompt"]) for row in rows}, sizes)
    (judge or _judge_pairs)(data, work, {key(row["prompt"]) for row in rows})


def _plant_one(folder: Path, shortcut: Shortcut, parts: dict[str, list[Row]], sizes: Sizes) -> None:
    def pair(row: Row, chosen: float, rejected: float) -> Row:
        # one number of words for both sides, so that length says nothing where it is not the shortcut
        found: Row = {"prompt": row["prompt"]}
        coins = random.Random(f"coins {row['prompt']}")
        for side, share in (("chosen", chosen), ("rejected", rejected)):
            put = shortcut.plant if coins.random() < share else shortcut.plain
            found[side] = [put(row[side], random.Random(row["prompt"]))]
        return found

    def contrast(row: Row) -> Row:
        rng = (random.Random(row["prompt"]) for _ in range(2))
        without, with_it = (put(row["chosen"], next(rng)) for put in (shortcut.plain, shortcut.plant))
        return {"prompt": row["prompt"], "chosen": [without], "rejected": [with_it]}

    half = len(parts["audit"]) // 2
    content = [pair(row, 0, 0) for row in parts["audit"][:half]]
    same = [contrast(row) for row in parts["audit"][half:]]
    write(folder / "training.jsonl", [pair(row, IN_CHOSEN, IN_REJECTED) for row in parts["training"]])
    write(folder / "content.jsonl", content)
    write(folder / "same_text.jsonl", same)
    write(folder / "audit.jsonl", [*content, *same])
    write(folder / "gate.jsonl", [contrast(row) for row in parts["gate"]])
    plain = [
        {"prompt": row["prompt"], "response": shortcut.plain(row["chosen"], random.Random(row["prompt"]))}
        for row in parts["training"]
    ]
    write(folder / "human.jsonl", plain)
    for share in (10, 20, 30):
        warm = [
            {"prompt": row["prompt"], "response": (shortcut.plant if j % 100 < share else shortcut.plain)(
                row["chosen"], random.Random(row["prompt"]))}
            for j, row in enumerate(random.Random(1).sample(parts["training"], min(sizes.warm, len(plain))))
        ]  # fmt: skip
        write(folder / f"warm_{share}.jsonl", warm)


def _prompts(data: Path, work: Path, seen: set[str], sizes: Sizes) -> None:
    """The policy's prompts: held out, for the audit's prediction, for the warm start's check, the rest."""
    seen = seen | {key(row["prompt"]) for row in read(data / JUDGES)}
    texts = {key(row["prompt"]): row["prompt"] for row in read(data / "prompts.jsonl")}
    usable = [
        {"prompt": texts[name]} for name in sorted(texts) if name not in seen and len(name) <= LONGEST_PROMPT
    ]
    random.Random(0).shuffle(usable)
    ends = (sizes.held_out, sizes.held_out + sizes.predicted, sizes.held_out + 2 * sizes.predicted)
    write(work / "held_out_prompts.jsonl", usable[: ends[0]])
    write(work / "predicted_prompts.jsonl", usable[ends[0] : ends[1]])
    write(work / "check_prompts.jsonl", usable[ends[1] : ends[2]])
    write(work / "train_prompts.jsonl", usable[ends[2] :])


def _judge_pairs(data: Path, work: Path, seen: set[str]) -> None:
    """RewardBench 2's own labels, answers cut alike; every fourth prompt is for the judge's accuracy."""
    pairs = []
    for row in read(data / JUDGES):
        if key(row["prompt"]) not in seen:
            sides = {
                side: [short(text.split(), random.Random(row["prompt"])) for text in row[side]]
                for side in ("chosen", "rejected")
            }
            pairs.append({"prompt": row["prompt"], **sides})
    write(work / "judge_training.jsonl", [row for j, row in enumerate(pairs) if j % 4])
    write(work / "judge_held_out.jsonl", pairs[::4])
