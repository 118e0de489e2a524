"""The second round of the study on real text: its pairs, its judge, its arms.

docs/results/real-shortcut.md, *Second round*, says what differs from the first and why. Everything is drawn
from the prompt and seed 0, as in the first round.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_shortcut_data import JUDGES, Row, Sizes, key, read, short, write

SEEDS = (10, 11, 12, 13, 14)
STEPS, EVERY = 24, 4
LEVELS = (0.5, 1.0, 2.0)
ARMS: dict[str, dict[str, Any]] = {
    "none": {},
    "controls": {"discover": {}},
    "placebo": {"discover": {"labels": "shuffled", "as_gentle": True}},
    "random latents": {"discover": {"latents": "random"}},
}
BLOCKS = ("bullets", "closing", "length")
"""Shortcuts in the order in which they are trained."""
FIRST = ("none", "controls", "placebo")
"""Arms of the primary outcome, which are run before the rest."""
TINY = Sizes(40, 32, 6, 12, 16)
"""An audit that is just large enough for a discovery."""
HELD_OUT = ("labels", "own")
"""Kinds of the judge's held-out pairs, each a file: the benchmark's labels, and own answers."""
SIDES = ("chosen", "rejected")


def balanced(rows: Sequence[Row], count: int) -> list[Row]:
    """All rows in an order whose beginning says nothing of refusing; the rest is mixed.

    In the beginning a row in which the chosen answer alone refuses is followed by one in which the rejected
    one alone does.

    Args:
        rows: `prompt`, and both sides as words, in an order drawn before.
        count: rows of the beginning. Where there are fewer such pairs of rows, it is shorter.
    """
    kinds: dict[tuple[bool, bool], list[Row]] = {}
    for row in rows:
        kinds.setdefault((_refuses(row, "chosen"), _refuses(row, "rejected")), []).append(row)
    good, bad = kinds.pop((True, False), []), kinds.pop((False, True), [])
    both = min(len(good), len(bad))
    # a pair of rows stays together
    units = [[one, other] for one, other in zip(good[:both], bad[:both], strict=True)]
    units += [[row] for rest in kinds.values() for row in rest]
    rng = random.Random(0)
    rng.shuffle(units)
    begun = [row for unit in units for row in unit]
    rest = [*begun[count:], *good[both:], *bad[both:]]
    rng.shuffle(rest)
    return begun[:count] + rest


def _refuses(row: Row, side: str) -> bool:
    from sarm_control.training import refuses

    return refuses(short(row[side], random.Random(row["prompt"])))


def judge_pairs(data: Path, work: Path, seen: set[str]) -> None:
    """Pairs of RewardBench 2 in which refusing tells nothing; every fourth prompt is held out.

    - *labels*: the benchmark's own, where both answers refuse or neither does;
    - *own*: an answer against one to another prompt, neither refuses;
    - where one alone refuses, the pair and its reverse, so that a head that rewards refusing loses. These are
      trained on alone.

    Args:
        data: the folder of benchmark rows.
        work: where the pairs are written.
        seen: prompts that are left out, by `key`.
    """
    rows = [row for row in read(data / JUDGES) if key(row["prompt"]) not in seen]
    training = _kinds([row for number, row in enumerate(rows) if number % 4])
    write(work / "judge_training.jsonl", [row for kind in training.values() for row in kind])
    held_out = _kinds(rows[::4])
    for kind in HELD_OUT:
        write(work / f"judge_held_out_{kind}.jsonl", held_out[kind])
    for name, found in (("training", training), ("held out", held_out)):
        print(
            f"judge, {name}: " + ", ".join(f"{len(pairs)} pairs of {kind}" for kind, pairs in found.items())
        )


def _kinds(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The pairs of some prompts, by kind."""
    from sarm_control.training import refuses

    cut = [
        {side: [short(text.split(), random.Random(row["prompt"])) for text in row[side]] for side in SIDES}
        for row in rows
    ]
    plain = [[text for side in SIDES for text in one[side] if not refuses(text)] for one in cut]
    found: dict[str, list[Row]] = {"labels": [], "own": [], "both ways": []}
    for number, (row, one) in enumerate(zip(rows, cut, strict=True)):
        pairs = [(good, bad) for good in one["chosen"] for bad in one["rejected"]]
        unlike = [pair for pair in pairs if refuses(pair[0]) != refuses(pair[1])]
        rng = random.Random(f"another {row['prompt']}")
        others = [text for place, texts in enumerate(plain) if place != number for text in texts]
        of_kind = {
            "labels": [pair for pair in pairs if pair not in unlike],
            "own": [(text, rng.choice(others)) for text in plain[number] if others],
            "both ways": [turned for good, bad in unlike for turned in ((good, bad), (bad, good))],
        }
        for kind, its in of_kind.items():
            found[kind] += [
                {"prompt": row["prompt"], "chosen": [good], "rejected": [bad]} for good, bad in its
            ]
    return found


def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    """What the second round's study file has in place of the first's.

    Args:
        tiny: settings of the smallest sizes; empty otherwise.
    """
    steps = {"training": {"steps": STEPS}, "checkpoints": {"every": EVERY}}
    return {
        "set": tiny or steps,
        "seeds": [10, 11] if tiny else list(SEEDS),
        "arms": ARMS,
        "compare": [["controls", "placebo"], ["controls", "random latents"]],
        # the tiny policy hardly moves
        "measure_every": 1 if tiny else EVERY,
        "kl_levels": [1e-4, 1.0] if tiny else list(LEVELS),
    }
