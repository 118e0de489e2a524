"""Everything about one latent: where it fires, what it resembles, and which choices it decides.

Shapes: `N` answers, `L` latents, `P` prompts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sarm_control.control import Edit, edited_rewards, unrounded_rewards
from sarm_control.data import prompt_text
from sarm_control.explorer.columns import answer_roles
from sarm_control.latents import ScoredRows
from sarm_control.reward_model import RewardModel
from sarm_control.seeds import numpy_generator
from sarm_control.statistics import Interval, share_interval

BINS = 24
SHOWN = 8
SIBLINGS = 8
_LONGEST = 4000


class Sibling(NamedTuple):
    """A latent that resembles another, and how much: a cosine or a correlation, -1..1."""

    latent: int
    similarity: float


class Flip(NamedTuple):
    """A prompt whose best answer is another one without the latent; the answers by their numbers 0..N-1."""

    before: int
    after: int


class Flips(NamedTuple):
    """What the removal of a latent changes among the answers of each prompt.

    Args:
        prompts: with at least two different answers.
        answers: mean number of answers of these prompts.
        changed: share of them whose best answer changes; None without such prompts.
        examples: some of them.
    """

    prompts: int
    answers: float
    changed: Interval | None
    examples: tuple[Flip, ...]


def answer_places(data: ScoredRows) -> list[tuple[int, int]]:
    """[N] the row of each answer, and its place among the row's answers."""
    return [(number, place) for number, row in enumerate(data.rows) for place in range(len(row.answers))]


def answer_json(data: ScoredRows, numbers: Sequence[int], latent: int | None = None) -> list[dict[str, Any]]:
    """Answers for the page: texts, role and reward, and what one latent does there.

    Args:
        data: all answers.
        numbers: which of them, 0..N-1.
        latent: whose value and contribution to add.
    """
    places, who = answer_places(data), answer_roles(data.rows)
    z = None if latent is None else data.scored.latents.columns([latent])[:, 0]
    shown = []
    for number in numbers:
        row, place = places[number]
        text = data.rows[row].answers[place]
        found = {
            "answer": int(number),
            "row": row,
            "role": str(who[number]),
            "prompt": _cut(prompt_text(data.rows[row].prompt)),
            "text": _cut(text),
            "reward": float(data.scored.rewards[number]),
        }
        if z is not None and latent is not None:
            value = float(z[number])
            found |= {"z": value, "contribution": value * float(data.scored.head[latent])}
        shown.append(found)
    return shown


def activating_answers(data: ScoredRows, latent: int, *, shown: int = SHOWN) -> dict[str, list[int]]:
    """Numbers of answers in which a latent is active: the highest z, the middle ones, random ones.

    Distinct texts only: a corpus often has the same answer many times.
    """
    fires = np.flatnonzero(data.scored.latents.active([latent])[:, 0])
    z = data.scored.latents.columns([latent])[fires, 0]
    # equal values in the order of the data, so that equal calls show equal answers
    order = fires[np.lexsort((fires, -z))]
    texts = [text for row in data.rows for text in row.answers]
    seen: set[str] = set()
    distinct = [int(n) for n in order if not (texts[n] in seen or seen.add(texts[n]))]  # type: ignore[func-returns-value]
    start = max(0, (len(distinct) - shown) // 2)
    # the same draw at every visit, so that a note on an example stays true
    drawn = numpy_generator(0, "explored answers", latent).permutation(len(distinct))[:shown]
    return {
        "top": distinct[:shown],
        "middle": distinct[start : start + shown],
        "random": [distinct[n] for n in sorted(drawn)],
    }


def contribution_histogram(data: ScoredRows, latent: int) -> dict[str, Any] | None:
    """Counts of contributions where the latent is active, chosen against rejected answers, in equal bins.

    Answers in which it is not active contribute 0 and are counted apart. None where it never is.
    """
    active = data.scored.latents.active([latent])[:, 0]
    if not active.any():
        return None
    z = data.scored.latents.columns([latent])[:, 0].astype(np.float64)
    contributions = z * float(data.scored.head[latent])
    who = answer_roles(data.rows)
    # of all sides together, so that their bars can be compared
    edges = np.histogram_bin_edges(contributions[active], bins=BINS)
    sides = [side for side in ("chosen", "rejected", "response", "candidate") if (who == side).any()]
    return {
        "edges": edges.tolist(),
        "sides": [
            {
                "name": side,
                "answers": int((who == side).sum()),
                "active": int((active & (who == side)).sum()),
                "mean": float(contributions[who == side].mean()),
                "counts": np.histogram(contributions[active & (who == side)], bins=edges)[0].tolist(),
            }
            for side in sides
        ],
    }


def similar_by_decoder(rm: RewardModel, latent: int, *, most: int = SIBLINGS) -> list[Sibling]:
    """The latents whose decoder directions have the largest |cosine| with one latent's."""
    directions = rm.autoencoder.decoder.weight.detach()
    own = directions[:, latent]
    lengths = directions.norm(dim=0).clamp_min(1e-12)
    cosine = ((own @ directions) / (lengths * own.norm().clamp_min(1e-12))).float().cpu().numpy()
    return _largest(cosine, latent, most)


def similar_by_firing(data: ScoredRows, latent: int, *, most: int = SIBLINGS) -> list[Sibling]:
    """The latents with the largest |phi|, the correlation of firing over answers.

    Latents that always or never fire have phi 0.
    """
    latents = data.scored.latents
    count = len(latents)
    fires = latents.active([latent])[:, 0]
    both = np.bincount(latents.indices[fires[latents.row_ids()]], minlength=latents.size) / max(count, 1)
    rate = np.bincount(latents.indices, minlength=latents.size) / max(count, 1)
    own = float(rate[latent])
    spread = np.sqrt(rate * (1 - rate) * own * (1 - own))
    phi = np.where(spread > 0, (both - rate * own) / np.where(spread > 0, spread, 1.0), 0.0)
    return [one for one in _largest(phi, latent, most) if one.similarity]


def flips_without(data: ScoredRows, latent: int, *, most: int = 6) -> Flips:
    """Which answer has the highest reward among those of each prompt, with the latent and with it set to 0.

    Of several answers with the highest reward the first counts, before and after.
    """
    before = unrounded_rewards(data.scored)
    after = edited_rewards(data.scored, [Edit(latent, set=0.0)])
    groups: dict[str, list[int]] = {}
    texts = [text for row in data.rows for text in row.answers]
    for number, (row, _) in enumerate(answer_places(data)):
        groups.setdefault(data.rows[row].prompt_key, []).append(number)
    # equal texts have equal rewards: a change between them would be no other choice
    sets = [own for own in groups.values() if len({texts[n] for n in own}) > 1]
    if not sets:
        return Flips(0, 0.0, None, ())
    # float32 on both sides, so that what ties after the edit is compared as before it
    first = [own[int(np.argmax(before[own].astype(np.float32)))] for own in sets]
    second = [own[int(np.argmax(after[own].astype(np.float32)))] for own in sets]
    changed: NDArray[np.float64] = np.array(
        [texts[one] != texts[other] for one, other in zip(first, second, strict=True)], dtype=np.float64
    )
    moved = [
        (abs(before[one] - before[other]), Flip(one, other))
        for one, other in zip(first, second, strict=True)
        if texts[one] != texts[other]
    ]
    moved.sort(key=lambda item: -item[0])
    interval = share_interval(changed) if len(sets) > 1 else None
    sizes = float(np.mean([len(own) for own in sets]))
    return Flips(len(sets), sizes, interval, tuple(flip for _, flip in moved[:most]))


def _largest(similarity: NDArray[np.floating[Any]], latent: int, most: int) -> list[Sibling]:
    size = np.abs(similarity)
    # below every other, since a latent resembles itself most
    size[latent] = -1.0
    order = np.argsort(-size, kind="stable")[: min(most, len(size) - 1)]
    return [Sibling(int(n), float(similarity[n])) for n in order]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
