"""What a worker does with conversations: it tokenizes them, computes latents, and rewards them.

Shapes: `N` conversations.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sarm_control.conversation import Encoded, Rendered, TemplatedText
from sarm_control.errors import SarmError
from sarm_control.reward_model import RewardModel, Scored, SparseLatents, length_sorted_batches
from sarm_control.server.http.metrics import Metrics
from sarm_control.server.scoring.batcher import ItemResult
from sarm_control.server.scoring.cache import LatentCache, Latents, cache_key
from sarm_control.server.scoring.control_state import Answered, VersionedControls
from sarm_control.server.scoring.conversations import Conversation

# On a CPU small passes are faster: their rows have similar lengths, and the states stay in the processor's
# cache.
_BATCH_TOKENS_CPU = 2048
_BATCH_TOKENS_GPU = 32768


class Scorer:
    """Scores on one device. Several scorers share the controls and the cache.

    Args:
        model: the reward model on that device.
        controls: give the rewards.
        cache: latents of conversations scored before.
        metrics: counts answers, tokens and passes.
        batch_tokens: padded tokens of one forward pass; None is the default of the device.
    """

    def __init__(
        self,
        model: RewardModel,
        controls: VersionedControls,
        cache: LatentCache,
        metrics: Metrics,
        batch_tokens: int | None = None,
    ) -> None:
        on_cpu = model.device.type == "cpu"
        self.model = model
        self.controls = controls
        self.cache = cache
        self.metrics = metrics
        self.batch_tokens = batch_tokens or (_BATCH_TOKENS_CPU if on_cpu else _BATCH_TOKENS_GPU)
        self._reader = TemplatedText(model.template)

    def __call__(self, conversations: Sequence[Conversation]) -> Iterator[Sequence[ItemResult[Answered]]]:
        """The answers: refused ones, then those with cached latents, then one forward pass after another."""
        rendered: dict[int, Rendered] = {}
        refused: list[ItemResult[Answered]] = []
        for place, conversation in enumerate(conversations):
            try:
                rendered[place] = conversation.render(self._reader)
            except SarmError as error:
                refused.append(ItemResult(place, error))
        yield refused
        ids = self.model.template.encode_rendered(list(rendered.values()))
        encoded = dict(zip(rendered, ids, strict=True))
        keys = {place: cache_key(one.input_ids) for place, one in encoded.items()}
        known = {place: found for place, key in keys.items() if (found := self.cache.get(key)) is not None}
        self.metrics.looked_up(hits=len(known), misses=len(encoded) - len(known))
        if known:
            of_known = {place: encoded[place] for place in known}
            yield self._reward(of_known, self._scored(of_known, known), cached=True)
        # equal conversations are scored once; `same` has the places of each
        same: dict[bytes, list[int]] = {}
        for place in encoded:
            if place not in known:
                same.setdefault(keys[place], []).append(place)
        yield from self._score(encoded, same)

    def _score(
        self, encoded: dict[int, Encoded], same: dict[bytes, list[int]]
    ) -> Iterator[Sequence[ItemResult[Answered]]]:
        """Forward passes over distinct conversations; `same` has the places of each."""
        distinct = list(same)
        lengths = [len(encoded[same[key][0]].input_ids) for key in distinct]
        for rows in length_sorted_batches(lengths, self.batch_tokens):
            batch = [distinct[row] for row in rows]
            scored = self.model.score_encoded(
                [encoded[same[key][0]] for key in batch],
                batch_tokens=self.batch_tokens,
                on_nonfinite="keep",  # `BatchReward.answers` refuses those that are not finite, one by one
            )
            self.metrics.passed(answers=len(batch), tokens=sum(lengths[row] for row in rows))
            own = self.model.head.own_rewards(scored.latents, scored.residual)
            rows_of = {
                key: Latents(*scored.latents.row(row), float(own[row])) for row, key in enumerate(batch)
            }
            found = {place: latents for key, latents in rows_of.items() for place in same[key]}
            of_found = {place: encoded[place] for place in found}
            repeated = len(found) > len(batch)
            reward = self._reward(
                of_found, self._scored(of_found, found) if repeated else scored, cached=False
            )
            refused = {one.place for one in reward if isinstance(one.result, Exception)}
            # after the rewards: latents that gave NaN must not get into the cache
            for key, latents in rows_of.items():
                if same[key][0] not in refused:
                    self.cache.put(key, latents)
            yield reward

    def _reward(
        self, encoded: dict[int, Encoded], scored: Scored, *, cached: bool
    ) -> Sequence[ItemResult[Answered]]:
        """Rewards `scored`, whose rows are those of `encoded`."""
        lengths = [len(one.input_ids) for one in encoded.values()]
        answers = self.controls.reward_answers(scored).answers(lengths, cached=cached)
        return [ItemResult(place, one) for place, one in zip(encoded, answers, strict=True)]

    def _scored(self, encoded: dict[int, Encoded], latents: dict[int, Latents]) -> Scored:
        """The same `Scored`, to the bit, as `RewardModel.score` makes from these latents."""
        rows = SparseLatents.from_rows([latents[place][:2] for place in encoded], self.model.config.latents)
        own = np.array([latents[place].own for place in encoded], dtype=np.float32)
        return Scored.of(rows, self.model.head, list(encoded.values()), own=own)
