"""Part d of docs/results/audit.md: the planted draws once more, audited with all wordings of each edit.

Shapes: `T` texts, `P` audit prompts, `n` changed answers, `W` wordings.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import real_audit_planted as planted
from known_rewards import Floats
from numpy.typing import NDArray
from real_audit_planted import SHARES, Trial, counted, ends_10_90, number, or_none, read_lines
from real_audit_states import Key, States
from real_shortcut_data import bench_rows

PLANTS = ("closing", "closing, other words")
KIND = "closing"
WAYS = {"one wording an answer": False, "all wordings": True}
"""How answers are audited, and whether every answer gets every wording."""
LEAST = 0.1
"""SDs below which a price is no headline; of what a head pays, too."""


def texts(found: planted.Material, training: int) -> list[Key]:
    """Everything that is ever scored: both forms of all answers, and every wording of the audit's edits."""
    from sarm_control.auditing import EDITS

    keys = [key for pairs in (found.plain, found.planted) for pair in pairs for key in pair]
    for prompt, text in (key for pair in found.audited(training) for key in pair):
        made = (one.contrast(prompt, text) for edit in EDITS for one in edit.wordings or (edit,))
        keys += [(prompt, one) for both in made if both is not None for one in both]
    return keys


class Offers(NamedTuple):
    """The audit's offers of help behind all audited answers that have none.

    Args:
        names: [W] their texts.
        prompt: [n] of each answer.
        without: [n] place of the state of the answer as it is.
        having: [n, W] places of the states with each offer behind it.
    """

    names: tuple[str, ...]
    prompt: NDArray[np.int64]
    without: NDArray[np.int64]
    having: NDArray[np.int64]

    def paid(self, rewards: Floats) -> tuple[float, Floats]:
        """What a head pays for the mean of all offers, and [W] for each: medians over prompts."""
        change = rewards[self.having] - rewards[self.without][:, None]
        _, place, counts = np.unique(self.prompt, return_inverse=True, return_counts=True)
        means = np.stack([np.bincount(place, weights=one) / counts for one in change.T], axis=1)
        return float(np.median(means.mean(axis=1))), np.median(means, axis=0)


def offers(trial: Trial) -> Offers:
    """Of all audit prompts, drawn or not."""
    from sarm_control.auditing import EDITS

    (edit,) = (one for one in EDITS if one.attribute == KIND and one.wordings)
    prompt, without, having = [], [], []
    for at, pair in enumerate(trial.found.audited(trial.sizes.training)):
        for asked, text in pair:
            made = [one.contrast(asked, text) for one in edit.wordings]
            behind = [(asked, both[1]) for both in made if both is not None]
            if behind:
                prompt.append(at)
                without.append((asked, text))
                having.append(trial.states.rows(behind))
    names = tuple(one.text for one in edit.wordings)
    return Offers(names, np.array(prompt), trial.states.rows(without), np.stack(having))


def one_draw(trial: Trial, draw: int, ways: Mapping[str, bool]) -> list[dict[str, Any]]:
    """What the audit of each share's head says, asked in each way."""
    weights, _, audited = planted.heads(trial, draw)
    own = offers(trial)
    return [
        {"way": way, "plant": trial.name, "draw": draw, "share": share}
        | _audited(planted.scores(trial, audited, weight), trial, own, every)
        for share, weight in weights.items()
        for way, every in ways.items()
    ]


def _audited(asked: planted.Scores, trial: Trial, own: Offers, every: bool) -> dict[str, Any]:
    from sarm_control.auditing import audit

    found = audit(asked.rm, asked.data, all_wordings=every)  # type: ignore[arg-type]
    one = next(one for one in found.findings if one.attribute.name == KIND)
    causal, sd = one.best_causal, found.table.reward_sd
    paid, each = own.paid(asked.rewards)
    wording = one.one_wording
    return {
        "price": None if causal is None else causal.sd,
        "sets": 0 if causal is None else causal.sets,
        "kind": one.unwanted and wording is None,
        "wording": None if wording is None else wording.text,
        "differ": one.wordings_differ,
        "headlines": [each.attribute.name for each in found.headlines],
        "paid": paid / sd,
        "paid_each": dict(zip(own.names, (each / sd).tolist(), strict=True)),
        "pays": planted.pays(trial, asked.rewards, sd),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The measures of every way and plant, of those draws that have all shares."""
    found: dict[str, Any] = {}
    for way in WAYS:
        for name in PLANTS:
            own = [row for row in rows if (row["way"], row["plant"]) == (way, name)]
            if own:
                found.setdefault(way, {})[name] = _of_plant(own)
    return found


def _of_plant(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    at = {(row["draw"], row["share"]): row for row in rows}
    draws = sorted({row["draw"] for row in rows})
    prices = [[number(at[draw, share]["price"]) for share in SHARES] for draw in draws]
    monotone = sum(all(one < other for one, other in pairwise(own)) for own in prices)
    return {
        "draws": len(draws),
        "monotone": counted(monotone, len(draws)),
        "shares": [{"share": share, **_of_share([at[draw, share] for draw in draws])} for share in SHARES],
    }


def _of_share(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    said = [row for row in rows if _said(row)]
    enough = [row for row in rows if row["paid"] >= LEAST]
    ways = {
        "headline": said,
        "of_the_kind": [row for row in rows if row["kind"]],
        "of_one_wording": [row for row in rows if row["wording"] is not None],
        "differ": [row for row in rows if row["differ"]],
        "paid_enough": enough,
    }
    of = {key: np.array([number(row[key]) for row in rows]) for key in ("price", "paid", "pays")}
    return {
        **{key: counted(len(own), len(rows)) for key, own in ways.items()},
        "true": sum(_true(row) for row in said),
        "headline_of_paid_enough": counted(sum(map(_said, enough)), len(enough)) if enough else None,
        "sets": float(np.mean([row["sets"] for row in rows])),
        "named": dict(Counter(row["wording"] for row in said if row["wording"] is not None).most_common()),
        "other_headlines": dict(
            Counter(name for row in rows for name in row["headlines"] if name != KIND).most_common()
        ),
        "paid_each_median": {
            name: float(np.median([row["paid_each"][name] for row in rows])) for name in rows[0]["paid_each"]
        },
        **{f"{key}_median": or_none(np.median, values) for key, values in of.items()},
        **{f"{key}_10_90": or_none(ends_10_90, values) for key, values in of.items()},
    }


def _said(row: Mapping[str, Any]) -> bool:
    return bool(row["kind"] or row["wording"] is not None)


def _true(row: Mapping[str, Any]) -> bool:
    """Whether a headline holds of its head on all audit prompts."""
    return bool((row["paid"] if row["wording"] is None else row["paid_each"][row["wording"]]) > 0)


def trials(data: Path, states: States, sizes: planted.Sizes) -> dict[str, Trial]:
    """Both plants, with all states that their draws need."""
    rows = bench_rows(data)[: sizes.prompts]
    found = {name: planted.material(rows, planted.PLANTS[name], sizes.training) for name in PLANTS}
    took = states.need(key for one in found.values() for key in texts(one, sizes.training))
    print(f"states of {len(states.place)} texts, {took:.0f} s", flush=True)
    return {name: Trial(name, one, sizes, states) for name, one in found.items()}


def run(
    data: Path, work: Path, states: States, sizes: planted.Sizes, *, until: float | None = None
) -> dict[str, Any]:
    """All draws that are not there yet, and the measures of all of them.

    Args:
        data: the folder of benchmark rows.
        work: where the draws are kept, and where those of part a are.
        states: of texts; what is missing is computed.
        sizes: how much of everything.
        until: `time.time()` after which no draw is begun.
    """
    trials(data, states, sizes)
    path = work / "wordings.jsonl"
    rows = read_lines(path)
    done = {(row["way"], row["plant"], row["draw"]) for row in rows}
    wanted = [(way, name, draw) for way in WAYS for draw in range(sizes.draws) for name in PLANTS]
    with path.open("a", encoding="utf-8") as file:
        jobs = [one for one in wanted if one not in done]
        for new in _drawn(jobs, (data, states.folder, sizes), until):
            # a draw's lines at once: one that was stopped is drawn again
            file.write("".join(json.dumps(row) + "\n" for row in new))
            file.flush()
            rows += new
    return {
        **sizes._asdict(),
        "both_sides": planted.BOTH,
        "audits": summary(rows),
        "first_wording": _first_wording(read_lines(work / "planted.jsonl")),
    }


def _first_wording(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median prices of part a, by plant and in the order of shares, where its draws are there."""
    found: dict[str, Any] = {}
    for name in PLANTS:
        for share in SHARES:
            own = [row["price"] for row in rows if (row["plant"], row["share"]) == (name, share)]
            if own:
                values = np.array([number(price) for price in own])
                one = {"price_median": or_none(np.median, values), "price_10_90": or_none(ends_10_90, values)}
                found.setdefault(name, []).append({"share": share, **one})
    return found


def _drawn(
    jobs: Sequence[tuple[str, str, int]], given: tuple[Path, Path, planted.Sizes], until: float | None
) -> Iterator[list[dict[str, Any]]]:
    """The draws, by a process for each core; heads and audits are too small for threads of their own."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    cores = min(os.cpu_count() or 1, max(len(jobs), 1))
    with ProcessPoolExecutor(cores, mp_context=context, initializer=_begin, initargs=given) as pool:
        for at, new in enumerate(pool.map(_job, jobs, [until] * len(jobs)), 1):
            print(f"draw {at} of {len(jobs)}", flush=True)
            yield new


_READY: dict[str, Trial] = {}


def _begin(data: Path, folder: Path, sizes: planted.Sizes) -> None:
    def refuse() -> Any:
        raise AssertionError("all states were computed before")

    _READY.update(trials(data, States(folder, refuse), sizes))


def _job(job: tuple[str, str, int], until: float | None) -> list[dict[str, Any]]:
    way, name, draw = job
    if until is not None and time.time() > until:
        return []
    return one_draw(_READY[name], draw, {way: WAYS[way]})
