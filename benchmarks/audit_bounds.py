"""Do the bounds of an audit's certificate hold of answers that it never saw?

    python benchmarks/audit_bounds.py --out benchmarks/results/audit_bounds.json [--draws 400]

Design, fixed before the first run. A policy is a program that writes answers of the lab's world:
`varied` (every attribute in 20 to 30 % of its answers), `demonstrations` (5 to 25 %), `rare` (6 %) and
`hardly` (1 %). A reward is what an annotator of drawn taste (either sign, any strength) likes an answer
by, plus noise of SD 0.5. Its mend takes 70 to 100 % of the taste for flattery away, and in half of the
rewards puts something else in its place: it changes the liking of another attribute by up to 0.5
log-odds, which is what a certificate is to find.

Each draw is a policy, a reward and a mend. The certificate is of 60 prompts with 16 answers each, at
best of 4 and 16, flattery targeted. The truth is the same change over 1,500 other prompts with 16 other
answers each of the same policy. Counted: draws in which *all* bounds hold (the promise is 95 %), bounds
that fail one by one, verdicts `still` whose true change is beyond 5 points (of a size 5 % of its mean),
and of true changes beyond 10 points how many were called moving. Draws take blocks of 60 prompts of one
sample of 2,400 for each policy, and the truth has an error of its own of a fifth of the certificate's,
which counts against it.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from sarm_control.auditing.best_of_n import expected_attributes
from sarm_control.auditing.certificates import LIMIT, certificate
from sarm_control.auditing.table import AttributeTable
from sarm_control.embedded import LAB
from sarm_control.files import write_json
from sarm_control.lab import World, lab_attributes
from sarm_control.lab.judges.annotators import MEAN, Taste, utility
from sarm_control.lab.language.answers import DEMONSTRATIONS, RARE, VARIED, Composer
from sarm_control.seeds import numpy_generator
from sarm_control.study.provenance import processor

Floats = NDArray[np.float64]
POLICIES = {
    "varied": VARIED,
    "demonstrations": DEMONSTRATIONS,
    "rare": RARE,
    "hardly": replace(RARE, flattery=0.01, closing=0.01, hedge=0.01, detail=0.01),
}
PROMPTS, EACH, SIZES, FRESH, SAMPLE, NOISE = 60, 16, (4, 16), 1500, 2400, 0.5
_NAMES = ("flattery", "closing", "hedging", "detail")


class Answers:
    """Answers of one policy, and what an annotator likes each of them by.

    Args:
        world: whose language.
        policy: which.
        prompts: how many questions.
        purpose: names the randomness.
    """

    def __init__(self, world: World, policy: str, prompts: int, purpose: str) -> None:
        rng = numpy_generator(world.seed, f"audit bounds: {policy}, {purpose}")
        writer, composer = world.writer(), Composer(world.language)
        self.attributes = lab_attributes(world).attributes
        questions = [next(writer.fresh(1, rng)) for _ in range(prompts)]
        found = [
            writer.judged(question, composer.compose(question, POLICIES[policy], rng))
            for question in questions
            for _ in range(EACH)
        ]
        fields = [{"refusal": "refuses"}.get(one.name, one.name) for one in self.attributes]
        self.values = np.array([[float(getattr(one.attributes, name)) for name in fields] for one in found])
        # utilities are linear in a taste, so a basis of tastes gives those of all
        nothing = Taste(*[0.0] * len(MEAN))
        self._fixed = np.array([utility(nothing, one.question, one.attributes) for one in found])
        self._basis = {
            name: np.array(
                [utility(nothing._replace(**{name: 1.0}), one.question, one.attributes) for one in found]
            )
            - self._fixed
            for name in MEAN._fields
        }
        self.noise = NOISE * rng.standard_normal(len(found))

    def rewards(self, taste: Taste) -> Floats:
        """[N] what this annotator likes each answer by, and noise."""
        parts = sum(getattr(taste, name) * column for name, column in self._basis.items())
        return np.asarray(self._fixed + parts + self.noise)

    def table(self, rewards: Floats, prompts: slice) -> AttributeTable:
        """The answers to some of the prompts."""
        rows = slice(prompts.start * EACH, prompts.stop * EACH)
        count = prompts.stop - prompts.start
        return AttributeTable(
            self.attributes,
            self.values[rows],
            rewards[rows],
            np.repeat(np.arange(count), EACH),
            np.full(count * EACH, "candidate"),
            ("",) * count,
            ("",) * (count * EACH),
        )


def drawn(rng: np.random.Generator) -> tuple[Taste, Taste]:
    """A taste, and what a mend of flattery makes of it."""
    liking = {name: float(rng.choice([-1.0, 1.0]) * rng.uniform(0.0, 1.5)) for name in _NAMES}
    liking["flattery"] = abs(liking["flattery"]) + 0.3
    taste = MEAN._replace(**liking, length=float(rng.uniform(-0.5, 0.5)))
    mended = taste._replace(flattery=taste.flattery * float(rng.uniform(0.0, 0.3)))
    if rng.random() < 0.5:
        other = str(rng.choice(_NAMES[1:]))
        mended = mended._replace(**{other: getattr(mended, other) + float(rng.uniform(-0.5, 0.5))})
    return taste, mended


def one_draw(seen: Answers, fresh: Answers, draw: int) -> list[dict[str, Any]]:
    """Every bound of one certificate, and its truth."""
    rng = numpy_generator(draw, "audit bounds: draws")
    taste, mended = drawn(rng)
    start = PROMPTS * int(rng.integers(SAMPLE // PROMPTS))
    block = slice(start, start + PROMPTS)
    table = seen.table(seen.rewards(taste), block)
    after = seen.rewards(mended)[block.start * EACH : block.stop * EACH]
    found = certificate(table, after, targeted=("flattery",), n=SIZES)
    whole = fresh.table(fresh.rewards(taste), slice(0, FRESH))
    _, unmended = expected_attributes(whole, n=SIZES)
    _, moved = expected_attributes(whole, n=SIZES, rewards=fresh.rewards(mended))
    change = (moved - unmended).mean(axis=0)
    names, rows = [one.name for one in table.attributes], []
    for one in found:
        place = names.index(one.name)
        size = table.attributes[place].unit == "doubling"
        # a size is told as a share of the unmended mean at the smallest n
        scale = float(unmended[:, 0, place].mean()) if size else 1.0
        truth = float(change[SIZES.index(one.n), place]) / scale
        rows.append({"name": one.name, "n": one.n, "truth": truth, "verdict": one.verdict})
        rows[-1]["holds"] = bool(one.low <= truth <= one.high)
    return rows


def summed(draws: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """Counts over draws."""
    held = sum(all(row["holds"] for row in rows) for rows in draws)
    every = [row for rows in draws for row in rows]
    still = [row for row in every if row["verdict"] == "still"]
    large = [row for row in every if abs(row["truth"]) > 2 * LIMIT]
    ends = binomtest(held, len(draws)).proportion_ci(0.95)
    return {
        "draws": len(draws),
        "all_bounds_hold": held,
        "interval": [float(ends.low), float(ends.high)],
        "bounds": len(every),
        "bounds_that_failed": sum(not row["holds"] for row in every),
        "failed_by_attribute": {
            name: sum(not row["holds"] for row in every if row["name"] == name)
            for name in sorted({row["name"] for row in every})
        },
        "still": len(still),
        "still_but_moved": sum(abs(row["truth"]) > LIMIT for row in still),
        "largest_move_of_a_still": max((abs(row["truth"]) for row in still), default=None),
        "moved_by_10_points": len(large),
        "of_these_called_moving": sum(row["verdict"].startswith("moves") for row in large),
        "of_these_called_moving_the_wrong_way": sum(
            row["verdict"] == ("moves down" if row["truth"] > 0 else "moves up") for row in large
        ),
    }


def main() -> None:
    """Writes what was counted after each policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draws", type=int, default=400, help="over all four policies")
    given = parser.parse_args()
    world, start = World.open(LAB), time.process_time()
    draws: list[list[dict[str, Any]]] = []
    found: dict[str, Any] = {}
    for number, policy in enumerate(POLICIES):
        seen, fresh = Answers(world, policy, SAMPLE, "seen"), Answers(world, policy, FRESH, "fresh")
        each = given.draws // len(POLICIES)
        own = [one_draw(seen, fresh, each * number + draw) for draw in range(each)]
        draws += own
        found[policy] = summed(own)
        print(f"{policy}: {json.dumps(found[policy])}", flush=True)
        if given.out is not None:
            more = {"processor_seconds": time.process_time() - start, "load_average": os.getloadavg()[1]}
            write_json(given.out, {**processor(), **found, "all": summed(draws), **more})


if __name__ == "__main__":
    main()
