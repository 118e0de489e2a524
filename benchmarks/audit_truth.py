"""Are an audit's prices the truth? Reward models whose prices are known, and heads learnt from known labels.

    python benchmarks/audit_truth.py --out benchmarks/results/audit_truth.json
    python benchmarks/audit_truth.py --only gold --draws 100 --pool /tmp/pool.npz --out ...

Design, fixed before the first run. A *pool* of the lab's world is made once: pairs of answers to fresh
prompts, every text that the audit's edits make of them, and the state of each text in the lab's trunk
(which the lab's annotators tuned, whatever labels a head is fitted on here). Each draw is a reward model
on these texts and an audit of 200 pairs drawn from the pool, with the lab's attributes and edits, so
nothing but the audit's own code makes a price.

- `annotators`: one audit of `lab:audit` by the lab's mean annotator as the reward, without noise. The truth
  of a phrase put in is closed: the taste once, and the taste for its words.
- `programs`: the reward is an annotator of drawn taste (flattery, closing, hedging, detail each +-0.3 to
  1.5 log-odds, length +-0.05 a word, and what all annotators like of the body) plus noise of SD 0.5 on
  every text. The truth of an edit is the median over all prompts of the pool of the change without
  noise; for a phrase put in it is closed: taste + length x its words, once. Reported: price / truth (its
  mean is the bias), share of prices within 10 %, share with the right sign, coverage of the 95 %
  intervals. Prices whose truth is below 0.1 SD are judged by sign and coverage alone.
- `learnt`: the same tastes label 750 pairs of the pool (Bradley-Terry), a dense head is fitted on their
  states. Two truths: the head's own change over the whole pool (what the audit should say), and the
  annotator's (what the reward model should have learnt; its own faults are no faults of an audit).
  Reported for both.
- `lab`: the lab's SARM. The same, over draws of pairs.
- `gold`: heads fitted on 750 pairs labelled by the gold reward alone. Gold pays for no style, so every
  headline is wrong by gold. Draws without headline; the limit is 95 of 100. Beside it: draws in which
  all headlines are true of the head, which pays them over the whole pool too (then the fault is the
  head's, and the audit is right to say so); and what is only said to come along.
- `gold_itself`: the same with gold as the reward, and noise.
- `shares`: pairs labelled by the gold reward of their bodies; 10 % of both sides have a closing by
  chance. In 0, 10, 30 and 50 % of the pairs a closing is put behind the chosen answer. Mean price by
  share, share of draws in which the price rises from share to share, and in which the closing is a
  headline (limit: 0.8 at 10 %, none at 0).

Draws share the pool, so they are not quite independent; intervals of shares are Clopper and Pearson's.
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from known_rewards import Floats, Key, Known, exact, pair_row
from known_rewards import lab as lab_model
from numpy.typing import NDArray

from sarm_control.auditing import Audit, audit
from sarm_control.auditing.attributes.text_edits import TextEdit
from sarm_control.data import read_rows
from sarm_control.embedded import LAB
from sarm_control.files import write_json
from sarm_control.lab import World, lab_attributes
from sarm_control.lab.datasets import Judged, Writer
from sarm_control.lab.judges.annotators import MEAN, Taste, utility
from sarm_control.lab.judges.gold import gold_reward
from sarm_control.lab.language.answers import VARIED, Composer
from sarm_control.latents import ScoredRows
from sarm_control.seeds import numpy_generator
from sarm_control.study.provenance import processor

AUDITED, TRAINING, NEUTRAL = 600, 1500, 1200
"""Pairs of the pool: to audit, to fit heads on, and to plant closings in."""
PAIRS, FITTED, NOISE = 200, 750, 0.5
SHARES = (0.0, 0.1, 0.3, 0.5)
TOLD = 0.1
"""SDs from which on a price must be within 10 % of its truth."""


@dataclass(frozen=True)
class Pool:
    """All texts, where they are, and what they are worth to the lab.

    Args:
        world: of the texts.
        audited: pairs to audit, the better one first.
        training: pairs labelled by gold.
        neutral: pairs labelled by the gold reward of the body; the third text is the first with a closing.
        place: (prompt, answer) -> row of the arrays below.
        states: [T, D] behind a norm of root mean square 1.
        lab: [T] rewards of the lab's SARM.
    """

    world: World
    audited: list[tuple[Judged, Judged]]
    training: list[tuple[Judged, Judged]]
    neutral: list[tuple[Judged, Judged, Judged]]
    place: dict[Key, int]
    states: Floats
    lab: Floats

    def rows_of(self, answers: Sequence[Judged]) -> NDArray[np.int64]:
        """[N] their rows."""
        return np.array([self.place[one.question.text, one.text] for one in answers], dtype=np.int64)


def pool_of(path: Path | None) -> Pool:
    """The pool; its states are read from a file, or computed and kept there."""
    world = World.open(LAB)
    writer = Writer(world.language, world.seed)
    audited = writer.gold_pairs(AUDITED, "audit truth: audited", keep=False)
    training = writer.gold_pairs(TRAINING, "audit truth: training", keep=False)
    neutral = neutral_pairs(world, writer)
    texts = [one for pair in (*audited, *training, *neutral) for one in pair]
    keys = [(one.question.text, one.text) for one in texts]
    for first, second in audited:
        for one in (first, second):
            for edit in _edits(world):
                made = edit.contrast(one.question.text, one.text)
                keys += [] if made is None else [(one.question.text, text) for text in made]
    place = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    states, rewards = _scored(list(place), path)
    return Pool(world, audited, training, neutral, place, states, rewards)


def _scored(keys: list[Key], path: Path | None) -> tuple[Floats, Floats]:
    """[T, D] states and [T] rewards of all texts; those that a file has are not computed again."""
    known: dict[Key, int] = {}
    kept: dict[str, Any] = {
        "keys": np.zeros((0, 2), dtype=np.str_),
        "states": np.zeros((0, 0)),
        "lab": np.zeros(0),
    }
    if path is not None and path.exists():
        kept = dict(np.load(path))
        known = {(str(prompt), str(text)): n for n, (prompt, text) in enumerate(kept["keys"])}
    new = [key for key in keys if key not in known]
    if new:
        scored = lab_model().score([key[0] for key in new], [key[1] for key in new], keep_states=True)
        assert scored.states is not None
        wide = scored.states.astype(np.float64)
        states = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True))
        kept = {
            "keys": np.concatenate([kept["keys"], np.array(new)]),
            "states": np.concatenate([kept["states"].reshape(-1, states.shape[1]), states]),
            "lab": np.concatenate([kept["lab"], scored.rewards.astype(np.float64)]),
        }
        known |= {key: len(known) + n for n, key in enumerate(new)}
        if path is not None:
            np.savez(path, **kept)
    rows = [known[key] for key in keys]
    return kept["states"][rows], kept["lab"][rows]


_EDITS: list[TextEdit] = []


def _edits(world: World) -> list[TextEdit]:
    if not _EDITS:
        _EDITS.extend(lab_attributes(world).edits)
    return _EDITS


def body_gold(one: Judged) -> float:
    """The gold reward without its part for style."""
    plain = replace(one.attributes, flattery=0, closing=0, hedging=0, repeated=0, junk=0, length=0)
    return gold_reward(one.question, plain)


def neutral_pairs(world: World, writer: Writer) -> list[tuple[Judged, Judged, Judged]]:
    """Pairs of different bodies, the better first, and the better one with a closing put behind it."""
    rng = numpy_generator(world.seed, "audit truth: neutral")
    composer, mix = Composer(world.language), replace(VARIED, flattery=0.1, closing=0.1, corrupted=0.0)
    found: list[tuple[Judged, Judged, Judged]] = []
    while len(found) < NEUTRAL:
        question = next(writer.fresh(1, rng))
        pair = [writer.judged(question, text) for text in composer.compose_pair(question, mix, rng)]
        better, worse = sorted(pair, key=lambda one: -body_gold(one))
        if body_gold(better) == body_gold(worse) or not better.text:
            continue
        phrase = str(rng.choice(list(world.language.closings)))
        # one that closes by chance stays as it is: left out, closings would be the mark of the worse answer
        closes = better.attributes.closing > 0
        planted = better if closes else writer.judged(question, f"{better.text} {phrase}")
        found.append((better, worse, planted))
    return found


def audited(pool: Pool, rewards: Floats, rng: np.random.Generator) -> Audit:
    """An audit of pairs drawn from the pool."""
    own, rm = lab_attributes(pool.world), Known(pool.place, rewards)
    drawn = rng.choice(len(pool.audited), PAIRS, replace=False)
    pairs = (pool.audited[i] for i in drawn)
    rows = [
        pair_row(n, better.question.text, better.text, worse.text)
        for n, (better, worse) in enumerate(pairs, 1)
    ]
    prompts = [row.prompt for row in rows for _ in row.answers]
    scored = rm.score(prompts, [text for row in rows for text in row.answers])
    return audit(rm, ScoredRows(rows, scored), attributes=own.attributes, edits=own.edits)  # type: ignore[arg-type]


class Truths:
    """The places of every edit's two texts, so that the truth of many rewards costs little."""

    def __init__(self, pool: Pool) -> None:
        self._found: dict[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = {}
        number = {text: n for n, text in enumerate({a.question.text for a, _ in pool.audited})}
        for edit in _edits(pool.world):
            rows = [
                (number[one.question.text], *(pool.place[one.question.text, text] for text in made))
                for pair in pool.audited
                for one in pair
                if (made := edit.contrast(one.question.text, one.text)) is not None
            ]
            of, without, having = np.array(rows, dtype=np.int64).T
            self._found[edit.words] = of, without, having
        self._answers = pool.rows_of([one for pair in pool.audited for one in pair])

    def of(self, rewards: Floats, sd: float) -> dict[str, float]:
        """Every edit's median change over all prompts of the pool, in SDs."""
        prices = {}
        for words, (of, without, having) in self._found.items():
            _, place, counts = np.unique(of, return_inverse=True, return_counts=True)
            means = np.bincount(place, rewards[having] - rewards[without]) / counts
            prices[words] = float(np.median(means)) / sd
        return prices

    def sd(self, rewards: Floats) -> float:
        """SD of the rewards of the pool's answers."""
        return float(rewards[self._answers].std(ddof=1))


def drawn_taste(rng: np.random.Generator) -> Taste:
    """An annotator of either sign and any strength for each matter of style."""
    names = ("flattery", "closing", "hedging", "detail")
    liking = {name: float(rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.5)) for name in names}
    return MEAN._replace(**liking, length=float(rng.uniform(-0.5, 0.5)))


def liking(pool: Pool, taste: Taste) -> Floats:
    """[T] what an annotator likes each text by."""
    world = pool.world
    if not _READ:
        _READ.extend((world.question(prompt), world.attributes(prompt, text)) for prompt, text in pool.place)
    return np.array([utility(taste, *one) for one in _READ])


_READ: list[Any] = []


def fitted_head(pool: Pool, better: NDArray[np.int64], worse: NDArray[np.int64]) -> Floats:
    """[T] rewards of a dense head fitted to [P] pairs by Bradley-Terry, with a ridge of 1."""
    from sklearn.linear_model import LogisticRegression

    difference = pool.states[better] - pool.states[worse]
    # a classifier wants both labels: a preference read backwards is the same preference
    sign = np.where(np.arange(len(difference)) % 2, -1.0, 1.0)
    model = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000)
    return np.asarray(pool.states @ model.fit(difference * sign[:, None], sign > 0).coef_[0])


def _compared(found: Audit, truth: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "edit": price.edit,
            "attribute": price.attribute,
            "sd": price.sd,
            "low": price.low,
            "high": price.high,
        }
        | {"truth": truth[price.edit], "sure": bool(price.q <= 0.05), "n": price.n}
        for one in found.findings
        for price in one.causal
        if price.n
    ]


def judged(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How prices stand to their truths, for each attribute and over all."""
    found: dict[str, Any] = {}
    for name in ("all", *dict.fromkeys(row["attribute"] for row in rows)):
        own = [row for row in rows if name in ("all", row["attribute"])]
        told = [row for row in own if abs(row["truth"]) >= TOLD]
        inside = sum(row["low"] <= row["truth"] + 1e-9 and row["truth"] - 1e-9 <= row["high"] for row in own)
        ratios = np.array([row["sd"] / row["truth"] for row in told])
        sure = [row for row in own if row["sure"]]
        found[name] = {
            "prices": len(own),
            "covered": inside / len(own),
            "of_0.1_sd": len(told),
            "ratio_mean": float(ratios.mean()) if len(told) else None,
            "ratio_10_90": np.quantile(ratios, (0.1, 0.9)).tolist() if len(told) else None,
            "within_10_percent": float((abs(ratios - 1) <= 0.1).mean()) if len(told) else None,
            "sign_right": float((ratios > 0).mean()) if len(told) else None,
            "sure": len(sure),
            "sure_of_wrong_sign": sum(row["sd"] * row["truth"] < 0 for row in sure),
        }
    return found


def programs(pool: Pool, draws: int) -> dict[str, Any]:
    """Annotators as the reward."""
    truths, rows = Truths(pool), []
    for draw in range(draws):
        rng = numpy_generator(draw, "audit truth: programs")
        plain = liking(pool, drawn_taste(rng))
        rewards = plain + NOISE * rng.standard_normal(len(plain))
        rows += _compared(audited(pool, rewards, rng), truths.of(plain, truths.sd(rewards)))
    return {"draws": draws, "pairs": PAIRS, "against_the_annotator": judged(rows)}


def annotators(pool: Pool, draws: int) -> dict[str, Any]:
    """The mean annotator of the lab, on the lab's own pairs."""
    del draws
    rows, own = read_rows("lab:audit", want={"pair"}), lab_attributes(pool.world)
    keys = [(row.prompt_text, text) for row in rows for text in row.answers]
    made = [(key[0], one) for key in keys for edit in own.edits for one in edit.contrast(*key) or ()]
    place = {key: n for n, key in enumerate(dict.fromkeys([*keys, *made]))}
    read = ((pool.world.question(prompt), pool.world.attributes(prompt, text)) for prompt, text in place)
    likes = np.array([utility(MEAN, *one) for one in read])
    rm = Known(place, likes)
    scored = ScoredRows(rows, rm.score(*zip(*keys, strict=True)))
    found = audit(rm, scored, attributes=own.attributes, edits=own.edits)  # type: ignore[arg-type]
    prices = []
    for one in found.findings:
        for price in one.causal:
            phrase = price.edit.split('"')[1].split() if '"' in price.edit else None
            taste = getattr(MEAN, one.attribute.name)
            prices.append(
                {
                    "attribute": one.attribute.name,
                    "edit": price.edit,
                    "n": price.n,
                    "price_log_odds": price.sd * found.table.reward_sd,
                    "taste": taste,
                    "taste_and_words": None if phrase is None else taste + MEAN.length * len(phrase) / 10,
                }
            )
    return {
        "pairs": len(rows),
        "reward_sd": found.table.reward_sd,
        "headlines": [one.attribute.name for one in found.headlines],
        "comes_along": [one.attribute.name for one in found.associations],
        "prices": prices,
    }


def learnt(pool: Pool, draws: int) -> dict[str, Any]:
    """Heads that learnt an annotator's choices."""
    truths, own, planted = Truths(pool), [], []
    for draw in range(draws):
        rng = numpy_generator(draw, "audit truth: learnt")
        likes = liking(pool, drawn_taste(rng))
        kept = rng.choice(len(pool.training), FITTED, replace=False)
        first, second = (pool.rows_of([pool.training[i][side] for i in kept]) for side in (0, 1))
        wins = rng.random(FITTED) < 1 / (1 + np.exp(likes[second] - likes[first]))
        rewards = fitted_head(pool, np.where(wins, first, second), np.where(wins, second, first))
        found = audited(pool, rewards, rng)
        own += _compared(found, truths.of(rewards, truths.sd(rewards)))
        planted += _compared(found, truths.of(likes, truths.sd(likes)))
    return {
        "draws": draws,
        "pairs": PAIRS,
        "against_the_head": judged(own),
        "against_the_annotator": judged(planted),
    }


def lab(pool: Pool, draws: int) -> dict[str, Any]:
    """The lab's SARM."""
    truths, likes, rows = Truths(pool), liking(pool, MEAN), []
    own = truths.of(pool.lab, truths.sd(pool.lab))
    panel = truths.of(likes, truths.sd(likes))
    for draw in range(draws):
        rows += _compared(audited(pool, pool.lab, numpy_generator(draw, "audit truth: lab")), own)
    edits = {words: {"reward_model": own[words], "annotators": panel[words]} for words in own}
    return {"draws": draws, "pairs": PAIRS, "against_the_reward_model": judged(rows), "edits": edits}


class Headlines:
    """What audits of many draws said first: how many said nothing, and what the others named."""

    def __init__(self) -> None:
        self.draws = self.clean = 0
        self.named: Counter[str] = Counter()
        self.along: Counter[str] = Counter()

    def add(self, found: Audit) -> None:
        """Counts one audit."""
        self.draws += 1
        self.clean += not found.headlines
        self.named.update(one.attribute.name for one in found.headlines)
        self.along.update(one.attribute.name for one in found.associations)

    def to_dict(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "draws": self.draws,
            "pairs": PAIRS,
            "clean": self.clean,
            "interval": exact(self.clean, self.draws),
            "named": dict(self.named),
            "comes_along_without_being_a_headline": dict(self.along),
        }


def gold(pool: Pool, draws: int) -> dict[str, Any]:
    """Heads that gold alone taught."""
    truths, said, right = Truths(pool), Headlines(), 0
    pays: dict[str, list[float]] = {}
    for draw in range(draws):
        rng = numpy_generator(draw, "audit truth: gold")
        kept = rng.choice(len(pool.training), FITTED, replace=False)
        rewards = fitted_head(
            pool, *(pool.rows_of([pool.training[i][side] for i in kept]) for side in (0, 1))
        )
        found = audited(pool, rewards, rng)
        truth = truths.of(rewards, truths.sd(rewards))
        for words, value in truth.items():
            pays.setdefault(words, []).append(value)
        said.add(found)
        # a headline is right of the head where the head pays the edit over the whole pool too
        right += all(
            truth[one.best_causal.edit] > 0 for one in found.headlines if one.best_causal is not None
        )
    return {
        **said.to_dict(),
        "every_headline_is_true_of_the_head": right,
        "interval_of_that": exact(right, draws),
        "what_the_heads_pay": {words: float(np.mean(values)) for words, values in pays.items()},
    }


def gold_itself(pool: Pool, draws: int) -> dict[str, Any]:
    """Gold as the reward, and noise of SD 0.5."""
    said = Headlines()
    prompts, texts = zip(*pool.place, strict=True)
    plain = pool.world.gold(prompts, texts)
    for draw in range(draws):
        rng = numpy_generator(draw, "audit truth: gold itself")
        said.add(audited(pool, plain + NOISE * rng.standard_normal(len(plain)), rng))
    return said.to_dict()


def shares(pool: Pool, draws: int) -> dict[str, Any]:
    """Closings planted in a share of the chosen answers."""
    prices = np.empty((draws, len(SHARES)))
    headline = np.zeros((draws, len(SHARES)), dtype=bool)
    for draw in range(draws):
        kept = numpy_generator(draw, "audit truth: shares").choice(len(pool.neutral), FITTED, replace=False)
        better, worse, planted = (pool.rows_of([pool.neutral[i][at] for i in kept]) for at in range(3))
        for at, share in enumerate(SHARES):
            # the pairs are in random order, so the first ones are a random share of them
            chosen = np.where(np.arange(FITTED) < share * FITTED, planted, better)
            found = audited(
                pool, fitted_head(pool, chosen, worse), numpy_generator(draw, "audit truth: rows")
            )
            prices[draw, at] = next(one.price for one in found.findings if one.attribute.name == "closing")
            headline[draw, at] = "closing" in {one.attribute.name for one in found.headlines}
    return {
        "draws": draws,
        "pairs": PAIRS,
        "monotone_draws": int((np.diff(prices, axis=1) > 0).all(axis=1).sum()),
        "shares": [
            {
                "share": share,
                "price_mean": float(prices[:, at].mean()),
                "price_10_90": np.quantile(prices[:, at], (0.1, 0.9)).tolist(),
                "headline": int(headline[:, at].sum()),
                "interval": exact(int(headline[:, at].sum()), draws),
            }
            for at, share in enumerate(SHARES)
        ],
    }


PARTS = {
    "annotators": annotators,
    "programs": programs,
    "gold": gold,
    "gold_itself": gold_itself,
    "shares": shares,
    "learnt": learnt,
    "lab": lab,
}
DRAWS = {
    "annotators": 1,
    "programs": 30,
    "gold": 100,
    "gold_itself": 100,
    "shares": 25,
    "learnt": 30,
    "lab": 20,
}


def main() -> None:
    """Measures the parts that are asked for, and writes after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pool", type=Path, help="file that keeps the pool's states")
    parser.add_argument("--draws", type=int, help="of every part; the default differs by part")
    parser.add_argument("--only", choices=tuple(PARTS), nargs="*", default=tuple(PARTS))
    given = parser.parse_args()
    pool = pool_of(given.pool)
    for name in given.only:
        start = time.process_time()
        one = PARTS[name](pool, given.draws or DRAWS[name])
        one |= {"processor_seconds": time.process_time() - start, "load_average": os.getloadavg()[1]}
        print(f"{name}: {json.dumps(one)}", flush=True)
        if given.out is not None:
            # parts that are not measured now stay as they are; another process may have written some
            there = json.loads(given.out.read_text()) if given.out.exists() else {}
            write_json(given.out, {**there, **processor(), name: one})


if __name__ == "__main__":
    main()
