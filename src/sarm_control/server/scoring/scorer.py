"""What a worker does with conversations: ids, latents, rewards.

Shapes: `N` conversations.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from sarm_control.conversation import Encoded, Rendered, TemplatedText
from sarm_control.errors import SarmError
from sarm_control.reward_model import Contribution, RewardModel, Scored, SparseLatents, length_sorted_batches
from sarm_control.server.http.metrics import Metrics
from sarm_control.server.scoring.batcher import Answer
from sarm_control.server.scoring.cache import LatentCache, Latents, cache_key
from sarm_control.server.scoring.control_state import Owner, Paid
from sarm_control.server.scoring.conversations import Conversation

# On processors small passes are the faster ones: rows of a length, and states that stay in the cache.
_BATCH_TOKENS_CPU = 2048
_BATCH_TOKENS_GPU = 32768


class Answered(NamedTuple):
    """One conversation's reward: row `row` of those it was paid with.

    Args:
        paid: those it was paid with; nothing of them changes this answer.
        row: its place among them.
        tokens: of the whole conversation, as it was scored.
        cached: whether its latents were known already.
    """

    paid: Paid
    row: int
    tokens: int
    cached: bool

    @property
    def value(self) -> float:
        """What engines are given."""
        return self.paid.values[self.row]

    def column(self, name: str) -> float:
        """A part of the reward, in reward units."""
        return self.paid.columns[name][self.row]

    @property
    def ended(self) -> bool:
        """False where the answer had no end-of-turn."""
        return bool(self.paid.scored.ended[self.row])

    @property
    def truncated(self) -> int:
        """Tokens dropped from the left."""
        return int(self.paid.scored.truncated[self.row])

    @property
    def length(self) -> int:
        """Tokens of the answer."""
        return int(self.paid.scored.lengths[self.row])

    def contributions(self, top: int) -> list[Contribution]:
        """The largest parts of the model's own reward."""
        return self.paid.scored.contributions(self.row, top)


class Scorer:
    """Scores on one device; several share an owner and a cache.

    Args:
        model: the reward model on that device.
        owner: pays.
        cache: of latents.
        metrics: counts what is done.
        batch_tokens: padded tokens of one forward pass; None is the default of the device.
    """

    def __init__(
        self,
        model: RewardModel,
        owner: Owner,
        cache: LatentCache,
        metrics: Metrics,
        batch_tokens: int | None = None,
    ) -> None:
        on_cpu = model.device.type == "cpu"
        self.model = model
        self.owner = owner
        self.cache = cache
        self.metrics = metrics
        self.batch_tokens = batch_tokens or (_BATCH_TOKENS_CPU if on_cpu else _BATCH_TOKENS_GPU)
        self._reader = TemplatedText(model.template)

    def __call__(self, conversations: Sequence[Conversation]) -> Iterator[Sequence[Answer[Answered]]]:
        """The answers, those whose latents are known first, then a forward pass at a time."""
        rendered: dict[int, Rendered] = {}
        refused: list[Answer[Answered]] = []
        for place, conversation in enumerate(conversations):
            try:
                rendered[place] = conversation.render(self._reader)
            except SarmError as error:
                refused.append(Answer(place, error))
        yield refused
        ids = self.model.template.encode_rendered(list(rendered.values()))
        encoded = dict(zip(rendered, ids, strict=True))
        keys = {place: cache_key(one.input_ids) for place, one in encoded.items()}
        known = {place: found for place, key in keys.items() if (found := self.cache.get(key)) is not None}
        self.metrics.looked_up(hits=len(known), misses=len(encoded) - len(known))
        if known:
            of_known = {place: encoded[place] for place in known}
            yield self._pay(of_known, self._scored(of_known, known), cached=True)
        same: dict[bytes, list[int]] = {}
        for place in encoded:
            if place not in known:
                same.setdefault(keys[place], []).append(place)
        yield from self._score(encoded, same)

    def _score(
        self, encoded: dict[int, Encoded], same: dict[bytes, list[int]]
    ) -> Iterator[Sequence[Answer[Answered]]]:
        """Forward passes over distinct conversations; `same` has the places of each."""
        distinct = list(same)
        lengths = [len(encoded[same[key][0]].input_ids) for key in distinct]
        for rows in length_sorted_batches(lengths, self.batch_tokens):
            batch = [distinct[row] for row in rows]
            scored = self.model.score_encoded(
                [encoded[same[key][0]] for key in batch],
                batch_tokens=self.batch_tokens,
                on_nonfinite="keep",  # the owner refuses what it cannot pay
            )
            self.metrics.passed(answers=len(batch), tokens=sum(lengths[row] for row in rows))
            own = self.model.head.own_rewards(scored.latents, scored.residual)
            rows_of = {
                key: Latents(*scored.latents.row(row), float(own[row])) for row, key in enumerate(batch)
            }
            found = {place: latents for key, latents in rows_of.items() for place in same[key]}
            of_found = {place: encoded[place] for place in found}
            repeated = len(found) > len(batch)
            paid = self._pay(of_found, self._scored(of_found, found) if repeated else scored, cached=False)
            # only what could be paid: a broken pass must not be remembered
            for key, latents in rows_of.items():
                self.cache.put(key, latents)
            yield paid

    def _pay(
        self, encoded: dict[int, Encoded], scored: Scored, *, cached: bool
    ) -> Sequence[Answer[Answered]]:
        """Pays `scored`, whose rows are those of `encoded`."""
        paid = self.owner.pay(scored)
        return [
            Answer(place, Answered(paid, row, len(one.input_ids), cached))
            for row, (place, one) in enumerate(encoded.items())
        ]

    def _scored(self, encoded: dict[int, Encoded], latents: dict[int, Latents]) -> Scored:
        """As `RewardModel.score` makes it of the same latents, to the bit."""
        rows = SparseLatents.from_rows([latents[place][:2] for place in encoded], self.model.config.latents)
        own = np.array([latents[place].own for place in encoded], dtype=np.float32)
        return Scored.of(rows, self.model.head, list(encoded.values()), own=own)
