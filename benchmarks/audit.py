"""What an audit promises, measured on the lab: clean data stay clean, bounds hold, and how fast it is.

    python benchmarks/audit.py --out benchmarks/results/audit.json
    python benchmarks/audit.py --only certificate --draws 400 --out benchmarks/results/audit.json

- `planted`: the lab's annotators have tastes that were planted. Their prices have the right sign.
- `clean`: a reward that is noise without labels (one number a text, drawn anew in each draw). Share of draws
  in which an audit finds nothing: no sure price of any attribute, by changed texts or by regression.
- `certificate`: a pool of answers that the lab's policy sampled stands for the policy; each draw is some
  prompts and 16 answers of each. Share of draws in which all bounds hold of what best-of-N gives in the pool.
- `speed`: `sarm audit` of 10,000 answers from stored latents, in a process of its own: seconds, and its
  largest resident memory (getrusage). The texts that it changes are scored within that time.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import Watch, machine

from sarm_control.auditing import Audit, audit, certificate
from sarm_control.auditing.best_of_n import expected_attributes
from sarm_control.auditing.table import AttributeTable, attribute_table
from sarm_control.comparison import Sampling, answer_prompts
from sarm_control.control import Edit, edited_rewards
from sarm_control.data import Row, read_rows
from sarm_control.embedded import LAB
from sarm_control.files import write_json
from sarm_control.lab import World, lab_attributes
from sarm_control.latents import ScoredRows, score_rows
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.training import Policy, PolicyConfig, encode_prompts

PLANTED = {"flattery": 1, "closing": 1}
"""What the lab's annotators like for its own sake, by the sign of its price."""


class Noise:
    """A reward of noise: a number for each text and seed, and whatever else the lab's model has."""

    def __init__(self, rm: RewardModel, seed: int) -> None:
        self._rm, self._seed = rm, seed

    def score(self, prompts: Any, responses: Any, **_: Any) -> Scored:
        """Noise for every text; no latents are active."""
        rewards = np.array([self.of(str(one), text) for one, text in zip(prompts, responses, strict=True)])
        empty = self._rm.score(list(prompts[:1]), list(responses[:1]))
        whole = empty.take(np.zeros(len(rewards), dtype=np.int64))
        return replace(whole, rewards=rewards.astype(np.float32))

    def of(self, prompt: str, text: str) -> float:
        """An effect of the prompt and a number of the text, both standard normal."""
        return sum(self._normal(f"{self._seed}|{part}") for part in (prompt, f"{prompt}|{text}"))

    def _normal(self, key: str) -> float:
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        return float(np.random.default_rng(int.from_bytes(digest, "little")).standard_normal())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rm, name)


def audited(rm: Any, rows: list[Row], **more: Any) -> Audit:
    """An audit with the lab's own attributes and edits."""
    own = lab_attributes(World.open(LAB))
    return audit(
        rm, ScoredRows(rows, score_rows(rm, rows)), attributes=own.attributes, edits=own.edits, **more
    )


def planted(rm: RewardModel, draws: int) -> dict[str, Any]:
    """Prices of what was planted; one audit."""
    del draws
    found = audited(rm, read_rows("lab:audit", want={"pair"}))
    prices = {one.attribute.name: one for one in found.findings}
    return {
        name: {
            "sd": prices[name].price,
            "low": prices[name].best_causal.low,  # type: ignore[union-attr]
            "high": prices[name].best_causal.high,  # type: ignore[union-attr]
            "sign_right": bool(np.sign(prices[name].price) == sign and prices[name].sure),
        }
        for name, sign in PLANTED.items()
    }


def clean(rm: RewardModel, draws: int) -> dict[str, Any]:
    """Draws of noise in which nothing is found."""
    rows = read_rows("lab:audit", want={"pair"})[:150]
    found: dict[str, int] = {"any_sure_price": 0, "any_headline": 0}
    for seed in range(draws):
        one = audited(Noise(rm, seed), rows, most=60, seed=seed)
        found["any_sure_price"] += any(each.sure for each in one.findings)
        found["any_headline"] += bool(one.headlines)
    return {"draws": draws, "prompts": len(rows), "clean_draws": draws - found["any_sure_price"], **found}


def pool_of_answers(rm: RewardModel, prompts: int, each: int) -> tuple[AttributeTable, np.ndarray]:
    """Attributes of sampled answers, and their rewards without the two latents that pay for closings most."""
    rows = read_rows("lab:audit", want={"pair"})[:prompts]
    policy = Policy.load(PolicyConfig(model=LAB), seed=0)
    encoded = encode_prompts(policy, [row.prompt for row in rows], [row.where for row in rows], 32)
    answers = answer_prompts(policy, encoded, Sampling(each, 32, 1.0, 0, 128))
    given = [
        Row(
            row.path,
            row.line,
            {},
            "candidates",
            row.prompt,
            candidates=answers.texts[p * each : (p + 1) * each],
        )
        for p, row in enumerate(rows)
    ]
    scored = rm.score(
        [row.prompt for row in given for _ in row.answers], list(answers.texts), ended=answers.ended
    )
    own = lab_attributes(World.open(LAB))
    table = attribute_table(ScoredRows(given, scored), own.attributes)
    return table, edited_rewards(scored, [Edit(8, scale=0.5), Edit(11, scale=0.0)])


def holds(rm: RewardModel, draws: int) -> dict[str, Any]:
    """Draws in which all bounds of a certificate hold of the pool."""
    prompts, pool, each, sizes = 80, 48, 16, (4, 16)
    table, mended = pool_of_answers(rm, prompts, pool)
    _, before = expected_attributes(table, n=sizes)
    _, after = expected_attributes(table, n=sizes, rewards=mended)
    truth = (after - before).mean(axis=0)
    sized = np.array([one.unit == "doubling" for one in table.attributes])
    rng, held = np.random.default_rng(0), 0
    still_moved = 0
    for _ in range(draws):
        drawn = rng.integers(0, prompts, 60)
        rows = np.concatenate([p * pool + rng.choice(pool, each, replace=False) for p in drawn])
        own = AttributeTable(
            table.attributes,
            table.values[rows],
            table.rewards[rows],
            np.repeat(np.arange(len(drawn)), each),
            table.role[rows],
            tuple(f"{n}" for n in range(len(drawn))),
            tuple(table.answers[n] for n in rows),
        )
        found = certificate(own, mended[rows], n=sizes)
        _, base = expected_attributes(own, n=sizes)
        scale = np.where(sized, np.maximum(base[:, 0].mean(axis=0), 1e-12), 1.0)
        right = []
        for one in found:
            place = [a.name for a in table.attributes].index(one.name)
            value = truth[sizes.index(one.n), place] / scale[place]
            right.append(one.low <= value <= one.high)
            still_moved += int(one.verdict == "still" and abs(value) > 0.05)
        held += int(all(right))
    return {"draws": draws, "all_bounds_hold": held, "still_but_moved": still_moved, "bounds": len(found)}


def speed(rm: RewardModel, draws: int) -> dict[str, Any]:
    """Seconds and memory of one command."""
    del rm, draws
    rows = [row.raw for row in read_rows("lab:audit", want={"pair"})]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = [{**row, "prompt": f"{row['prompt']} {n}"} for n in range(9) for row in rows][:5000]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
        command = [sys.executable, "-m", "sarm_control"]
        stored = [
            *command,
            "latents",
            str(folder / "pairs.jsonl"),
            "--model",
            "lab",
            "-o",
            str(folder / "latents"),
            "-q",
        ]
        subprocess.run(stored, check=True)
        start = time.perf_counter()
        words = [
            *command,
            "audit",
            str(folder / "latents"),
            "--model",
            "lab",
            "-o",
            str(folder / "out"),
            "-q",
        ]
        child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        assert status == 0
        seconds = time.perf_counter() - start
    assert isinstance(usage, resource.struct_rusage)
    return {
        "answers": 10_000,
        "attributes": "the battery of English text",
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


PARTS: dict[str, Callable[[RewardModel, int], dict[str, Any]]] = {
    "planted": planted,
    "clean": clean,
    "certificate": holds,
    "speed": speed,
}


def main() -> None:
    """Measures the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="*", default=tuple(PARTS))
    given = parser.parse_args()
    rm = RewardModel.from_pretrained(LAB)
    # parts that are not measured now stay as they are
    there = given.out is not None and given.out.exists()
    found: dict[str, Any] = json.loads(given.out.read_text()) if there else {}
    for name in given.only:
        watch = Watch()
        found[name] = PARTS[name](rm, given.draws)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        if given.out is not None:
            found[name]["machine"] = machine(watch.others())
            write_json(given.out, found)


if __name__ == "__main__":
    main()
