"""Parts b, e, f and g of docs/results/audit.md: a mend of style, on a reward model with a dictionary.

Shapes: `N` answers, `L` latents.
"""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from real_audit_states import BATCH_TOKENS, Key, States
from real_shortcut_data import PARTS, Row, key, read, write
from real_shortcut_models import Floats, best_ridge, preference_weight

if TYPE_CHECKING:
    from sarm_control.auditing import Audit
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import LinearHead, RewardModel, Scored

TEST = "reward_bench_2_safety.jsonl"
TESTED, HEADS = "RewardBench 2 safety", ("even", "styled")
MENDED = ("length", "bullets", "bold", "headers")
STYLES = 3
HALVES = {"mend": (0,), "even": (1, 2), "rule": (3, 4), "attached": (5, 6)}
"""Seeds of parts b, e, f and g: which of the other half's prompts fit, and which judge."""


class Sizes(NamedTuple):
    """How much of everything.

    Args:
        rows: of RM-Bench; all where None.
        latents: of a dictionary.
        k: of them that an answer keeps.
        steps: of the autoencoder.
        edited: prompts that an edit is tried on.
        layer: decoder layers of the trunk.
    """

    rows: int | None = None
    latents: int = 512
    k: int = 64
    steps: int = 2000
    edited: int = 60
    layer: int = 6


class Places(NamedTuple):
    """Where rows are, and where everything is written."""

    data: Path
    work: Path


def bench(places: Places, sizes: Sizes) -> list[Row]:
    """RM-Bench's rows, in an order drawn once."""
    rows = [row for part in PARTS for row in read(places.data / f"rm_bench_{part}.jsonl")]
    random.Random(0).shuffle(rows)
    return rows[: sizes.rows]


def halves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the half of their prompts."""
    prompts = sorted({key(row["prompt"]) for row in rows})
    random.Random(0).shuffle(prompts)
    first = set(prompts[: len(prompts) // 2])
    return {
        "A": [row for row in rows if key(row["prompt"]) in first],
        "B": [row for row in rows if key(row["prompt"]) not in first],
    }


def keys_of(rows: Sequence[Row]) -> list[Key]:
    """All answers, chosen ones first, in the order of their styles."""
    return [(row["prompt"], text) for row in rows for text in (*row["chosen"], *row["rejected"])]


def written_half(places: Places, half: str, rows: list[Row]) -> Path:
    """The file of a half's rows."""
    pairs = places.work / f"half-{half}.jsonl"
    write(pairs, rows)
    return pairs


def build(places: Places, half: str, rows: list[Row], sizes: Sizes) -> Path:
    """The SARM of a half's rows."""
    out = places.work / f"sarm-{half}"
    if (out / "config.json").is_file():
        return out
    pairs = written_half(places, half, rows)
    command = [
        *(Path(sys.executable).with_name("sarm"), "build", "--base", places.work.parent / "smollm2"),
        *("--layer", sizes.layer, "--latents", sizes.latents, "--k", sizes.k, "--steps", sizes.steps),
        *("--batch", 1024, "--dtype", "float32", "--device", "cpu"),
        *("--batch-tokens", BATCH_TOKENS, "--pairs", pairs),
        *("--cache", places.work / "build-states", "-o", out, "--overwrite"),
    ]
    subprocess.run([str(word) for word in command], check=True)
    return out


class FromStates:
    """A reward model with latents whose trunk's states are kept, with a head that may be another.

    Args:
        rm: a SARM, or a classifier with a dictionary.
        states: of its trunk.
        head: over its latents.
    """

    def __init__(self, rm: "RewardModel", states: States, head: "LinearHead") -> None:
        self._rm, self._states, self._head = rm, states, head

    def score(self, prompts: Sequence[Any], responses: Sequence[str], **_: Any) -> "Scored":
        """Rewards and latents; states that are not kept yet are computed."""
        import torch

        from sarm_control.reward_model import Scored

        keys = [(str(prompt), text) for prompt, text in zip(prompts, responses, strict=True)]
        read = self.read_states(keys)
        latents = self._rm.score_states(torch.from_numpy(read))
        sums, own = latents.sums(self._head.weight.astype(np.float64)), self._head.own
        tokenizer = self._rm.template.tokenizer
        tokens = tokenizer([text for _, text in keys], add_special_tokens=False)["input_ids"]
        found = Scored(
            sums.astype(np.float32),
            latents,
            self._head.weight,
            np.zeros(len(keys), dtype=np.int64),
            np.ones(len(keys), dtype=np.bool_),
            np.array([len(one) for one in tokens], dtype=np.int64),
            self._head.fingerprint,
        )
        if own is None:
            return found
        rewards = own.rewards(read)
        residual = rewards.astype(np.float64) - sums - self._head.constant
        constant = self._head.constant
        return replace(found, rewards=rewards, residual=residual, constant=constant, kind="attached")

    def read_states(self, keys: Sequence[Key]) -> NDArray[np.float32]:
        """[N, D] what the reward model reads: the trunk's states, behind the final norm if it has one."""
        import torch

        self._states.need(keys)
        states = self._states.all[self._states.rows(keys)]
        norm = self._rm.trunk.final_norm
        if norm is None:
            return states
        with torch.no_grad():
            behind: NDArray[np.float32] = norm(torch.from_numpy(states)).numpy()
        return behind

    def __getattr__(self, name: str) -> Any:
        # the reward after every token of an example, whose numbers nobody reads here
        return getattr(self._rm, name)


def styled_head(rm: "RewardModel", states: States, rows: Sequence[Row]) -> "LinearHead":
    """The head of pairs in which the chosen answer is not in the plainer style."""
    from sarm_control.reward_model import LinearHead

    latents = FromStates(rm, states, rm.head).score(*zip(*keys_of(rows), strict=True)).latents
    dense = latents.columns(list(range(rm.config.latents))).astype(np.float64)
    return LinearHead(style_weight(dense, rows, "styled"))


def style_weight(values: Floats, rows: Sequence[Row], name: str) -> NDArray[np.float32]:
    """The weights of one of HEADS, fitted to the pairs of styles that it is taught.

    Args:
        values: what is weighted, of the answers of `keys_of(rows)`.
        rows: of pairs.
        name: `even`: all pairs; `styled`: those in which the chosen answer is not in the plainer style.
    """
    by_style = values.reshape(len(rows), 2, STYLES, -1)
    places = [(i, j) for i in range(STYLES) for j in range(STYLES) if name == "even" or j <= i]
    change = np.concatenate([by_style[:, 0, i] - by_style[:, 1, j] for i, j in places])
    prompts = np.tile(np.arange(len(rows)), len(places))
    ridge, _ = best_ridge(change, prompts)
    return preference_weight(change, ridge).astype(np.float32)


def guards(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of pairs by name: parts of the nine pairs of a row."""

    def part(keep: Callable[[int, int], bool]) -> list[Row]:
        return [
            {"prompt": row["prompt"], "chosen": [row["chosen"][i]], "rejected": [row["rejected"][j]]}
            for row in rows
            for i in range(STYLES)
            for j in range(STYLES)
            if keep(i, j)
        ]

    return {
        "hard": part(lambda i, j: i < j),
        "normal": part(lambda i, j: i == j),
        "easy": part(lambda i, j: i > j),
    }


def scored(rm: FromStates, rows: Sequence[Row]) -> "ScoredRows":
    """Rows of dictionaries and the scores of their answers."""
    from sarm_control.data import read_rows
    from sarm_control.latents import ScoredRows

    plain = [{one: row[one] for one in ("prompt", "chosen", "rejected")} for row in rows]
    known = read_rows(plain, want={"pair"}, say_form=False)
    asked = [(row.prompt, text) for row in known for text in row.answers]
    return ScoredRows(known, rm.score(*zip(*asked, strict=True)))


def mended(
    rm: FromStates, rows: Sequence[Row], parts: Mapping[str, Sequence[Row]], sizes: Sizes, seed: int
) -> dict[str, Any]:
    """One reward model's audit, and every way's mend at the strength that its fitting quarter chose.

    Args:
        rm: the reward model.
        rows: what is audited; their pairs are the guard.
        parts: further pairs that every way is judged on.
        sizes: how much of everything.
        seed: of the quarters.
    """
    from sarm_control.auditing import EDITS, audit, mend, mendable

    data = scored(rm, rows)
    # their first wordings: the others came after the design
    edits = [one.worded(0) for one in EDITS if one.attribute in MENDED]
    found = audit(rm, data, edits=edits, most=sizes.edited)  # type: ignore[arg-type]
    can = mendable(found)
    targets = [name for name in MENDED if name in can]
    if not targets:
        return {"rows": len(rows), "targets": [], "why": "no edit applied to enough prompts"}
    whole = mend(found, data, targets, seed=seed)
    # parts of the rows have their prompts in the same order, so they are halved alike
    judged = {
        name: mend(found, data, targets, guard_data=scored(rm, own), seed=seed) for name, own in parts.items()
    }
    return {
        "rows": len(rows),
        "prices": _prices(found),
        "targets": targets,
        "recommended": whole.recommended,
        "why": whole.why,
        "chosen": whole.outcome.name,
        "edits": [str(edit) for edit in whole.edits],
        "ways": [
            _way(one.name, {"all": whole, **judged}, one.strength) for one in (whole.outcome, *whole.others)
        ],
    }


def _prices(found: "Audit") -> list[dict[str, Any]]:
    return [
        {"attribute": one.attribute.name, "headline": one.unwanted, **_price(price)}
        for one in found.findings
        for price in one.causal
        if price.n
    ]


def _price(price: Any) -> dict[str, Any]:
    return {name: getattr(price, name) for name in ("edit", "sd", "low", "high", "q", "n")}


def _way(name: str, mends: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """A way at its strength, judged on the pairs of every guard."""
    if not strength:
        return {"name": name, "strength": 0.0, "guards": {}, "left": [], "slopes": []}
    points = {
        guard: next(
            point
            for way in (one.outcome, *one.others)
            if way.name == name
            for point in way.frontier
            if point.strength == strength
        )
        for guard, one in mends.items()
    }
    left = [
        {"attribute": one.attribute, "edit": one.edit, "before": one.before.sd, "after": one.after.sd}
        for one in points["all"].left
    ]
    judged = {
        guard: {
            "before": point.guard.before,
            "after": point.guard.after,
            "change": point.guard.change.as_json(),
            "flips": point.guard.flips.as_json(),
        }
        for guard, point in points.items()
    }
    slopes = [one._asdict() for one in points["all"].slopes]
    return {"name": name, "strength": strength, "left": left, "slopes": slopes, "guards": judged}


def sarm_of(places: Places, half: str, rows: list[Row], name: str, sizes: Sizes) -> FromStates:
    """The SARM of a half's rows with one of HEADS."""
    from sarm_control.reward_model import RewardModel

    rm = RewardModel.from_pretrained(build(places, half, rows, sizes), device="cpu")
    states = States(places.work / "states", lambda: rm)
    return FromStates(rm, states, rm.head if name == "even" else styled_head(rm, states, rows))


Maker = Callable[[Places, str, list[Row], str, Sizes], FromStates]
"""Makes the reward model of a half's rows with one of HEADS, as `sarm_of`."""


def run(
    places: Places, sizes: Sizes, seeds: Sequence[int] = (0,), make: Maker = sarm_of, kind: str = ""
) -> dict[str, Any]:
    """Both halves with both heads, first on RM-Bench, then on RewardBench 2; what is there is kept.

    Args:
        places: see there.
        sizes: see there.
        seeds: of the quarters that fit and judge.
        make: the reward models.
        kind: of them, in the names of files.
    """
    rows = bench(places, sizes)
    seen = {key(row["prompt"]) for row in rows}
    test = [row for row in read(places.data / TEST) if key(row["prompt"]) not in seen][: sizes.rows]
    parts = halves(rows)
    found: dict[str, Any] = {}
    for what in ("bench", "test"):
        for half, other in (("A", "B"), ("B", "A")):
            judged = guards(parts[other]) if what == "bench" else {TESTED: test}
            for name in HEADS:
                rm = make(places, half, parts[half], name, sizes)
                for seed in seeds:
                    of_seed = f"-{seed}" if seed else ""
                    path = places.work / f"{kind}{half}-{name}-{what}{of_seed}.json"
                    if not path.exists():
                        one = mended(rm, parts[other], judged, sizes, seed)
                        path.write_text(json.dumps(one, indent=2) + "\n", encoding="utf-8")
                    label = f"built on {half}, {name}" + (f", halves {seed}" if seed else "")
                    _join(found, label, json.loads(path.read_text(encoding="utf-8")))
                    print(f"mend: {label}, {what}: done", flush=True)
    return {**sizes._asdict(), "test_rows": len(test), "reward_models": found}


def _join(found: dict[str, Any], name: str, one: dict[str, Any]) -> None:
    """Puts the guards of a reward model's second file beside those of its first."""
    if name not in found:
        found[name] = one
        return
    for way, more in zip(found[name].get("ways", ()), one.get("ways", ()), strict=True):
        way["guards"] |= more["guards"]
