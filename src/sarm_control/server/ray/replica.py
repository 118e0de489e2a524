"""The actors of a Ray deployment: replicas that score, and one actor whose controls learn for all of them.

This module imports Ray Serve. `sarm_control.server.ray.deployment` imports it only when it is needed.

Shapes: `N` answers.
"""

import asyncio
import copy
import inspect
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from sarm_control.control import ControlState
from sarm_control.conversation import Encoded, Rendered, TemplatedText
from sarm_control.engines import check_served, load_state_file, open_reward
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.server.http.engine_formats import ServedModel, json_response
from sarm_control.server.http.problems import refusal_of
from sarm_control.server.ray.requests import answer_reward, parse_request
from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings, require_serve
from sarm_control.server.scoring.batcher import ItemResult, isolated
from sarm_control.server.scoring.control_state import (
    Answered,
    LearningWindow,
    LearntState,
    gathered,
    reward_batch,
)

serve = require_serve()

_WHOLE = 100
_ONGOING = 1024


class Waiting(NamedTuple):
    """A conversation in the queue of a replica.

    `share` is its part of the token budget of a forward pass.
    """

    encoded: Encoded
    share: float


def share_of_budget(waiting: Sequence[Waiting]) -> int:
    """How much of a forward pass a batch fills, in hundredths of the token budget, padding included.

    One answer that is longer than the budget fills it.
    """
    # every row is padded to the longest; whole numbers, since Ray compares the sum with `max_batch_size`
    filled = math.ceil(_WHOLE * len(waiting) * max(one.share for one in waiting))
    return min(filled, _WHOLE) if len(waiting) == 1 else filled


def _batched(function: Any) -> Any:
    """`serve.batch` by tokens, or by a hundred answers where this version of Ray only counts them."""
    weighs = "batch_size_fn" in inspect.signature(serve.batch).parameters
    return serve.batch(max_batch_size=_WHOLE, **({"batch_size_fn": share_of_budget} if weighs else {}))(
        function
    )


class StateArrays(NamedTuple):
    """What the controls have learnt in `version` updates; version -1 where no controls are known."""

    version: int
    arrays: dict[str, NDArray[Any]]


class SharedControls:
    """The one actor of a deployment whose controls learn; replicas load what it has learnt.

    It holds no model. The first replica that is ready hands over its controls.

    Args:
        settings: when to learn, and the file that keeps what was learnt.
    """

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings
        self.state: LearntState | None = None
        self.window = None if settings.learn_window is None else LearningWindow(settings.learn_window)
        self.updating = asyncio.Lock()

    async def newer(self, version: int) -> StateArrays | None:
        """What was learnt, None where that is `version`; version -1 before any controls are known."""
        return None if self.state is not None and version == self.state.version else self._arrays()

    async def adopt(self, offered: ControlState, version: int) -> StateArrays:
        """Takes the controls of a replica where none are known yet, and returns what was learnt.

        Args:
            offered: where there is no state file, they are what was learnt.
            version: the updates they have learnt from; -1 before the replica loaded any.
        """
        if self.state is None:
            learner = copy.deepcopy(offered)  # what Ray hands over cannot be written to
            file = self.settings.state_file
            if file is not None and file.exists():
                version = load_state_file(file, learner)
            self.state = LearntState(learner, max(version, 0))
        return self._arrays()

    async def learn(self, scored: Scored) -> None:
        """Adds N answers that got their rewards, and learns from them once there are enough.

        Until an update is done, replicas go on with the version before it.
        """
        if self.window is None:
            return
        self.window.add([(scored, row) for row in range(len(scored))])
        # an update runs in a thread meanwhile: without the lock two would start from the same version
        async with self.updating:
            while self.state is not None and (window := self.window.take()) is not None:
                self.state = await asyncio.to_thread(self.state.updated, window, self.settings.state_file)

    def _arrays(self) -> StateArrays:
        if self.state is None:
            return StateArrays(-1, {})
        return StateArrays(self.state.version, self.state.learner.state_dict())


class Replica:
    """Scores answers of many requests together.

    Args:
        settings: model, controls, token budget.
        controls: handle of the `SharedControls`.
    """

    def __init__(self, settings: RewardSettings, controls: Any) -> None:
        self.settings = settings
        model = RewardModel.from_pretrained(
            settings.model,
            dtype=settings.dtype,
            device="cuda" if settings.gpus else "cpu",
            template_date=settings.template_date,
            pooling=settings.pooling,
            output=settings.output,
        )
        self.reward = open_reward(model, settings.files, standardize=settings.standardize)
        check_served(self.reward, learns=settings.learn_window is not None)
        self.reward.learner.check_size(settings.learn_window or 0)
        self.reader = TemplatedText(model.template)
        self.served = ServedModel(settings.model, model.fingerprint, self.reward.terms)
        self.controls = controls
        # version -1 equals none that the shared controls have: the first batch loads theirs
        self.state = LearntState(self.reward.learner, -1)
        self.updates: set[asyncio.Future[None]] = set()
        self._pass.set_batch_wait_timeout_s(settings.batch_wait)

    async def score(self, answers: Sequence[AnswerToScore]) -> list[AnswerReward]:
        """The rewards of N answers, in the order given.

        Raises:
            ModelError: a conversation the template refuses.
            ArithmeticError: a reward that is not a finite number.
        """
        return [answer_reward(answer) for answer in await self.answered(self.waiting(answers))]

    def waiting(self, answers: Sequence[AnswerToScore]) -> list[Waiting]:
        """Answers as they wait for a forward pass.

        Raises:
            ModelError: a conversation the template refuses.
        """
        render = self.reader.template.render
        return self._encoded([render(one["prompt"], one["response"], ended=one["ended"]) for one in answers])

    async def __call__(self, request: Request) -> Response:
        """`POST` to a path of `FORMATS`, such as `/get_reward` (OpenRLHF), and `GET /healthz`."""
        if request.url.path.endswith("/healthz"):
            return json_response({"status": "ok"})
        try:
            asked = parse_request(request.url.path, request.headers, await request.body())
            rendered = [conversation.render(self.reader) for conversation in asked.conversations]
            answers = await self.answered(self._encoded(rendered), learn=asked.learn)
            return json_response(asked.form.response(answers, asked.body, self.served), answers)
        except Exception as error:
            return refusal_of(error).response()

    def _encoded(self, rendered: Sequence[Rendered]) -> list[Waiting]:
        budget = self.settings.batch_tokens
        encoded = self.reader.template.encode_rendered(rendered)
        return [Waiting(one, len(one.input_ids) / budget) for one in encoded]

    async def answered(self, waiting: Sequence[Waiting], *, learn: bool = True) -> list[Answered]:
        """The rewards of one request.

        Args:
            waiting: its answers.
            learn: whether the controls may learn from them; they never do from a request that fails, which
                its client may send again.

        Raises:
            ArithmeticError: a reward that is not a finite number.
            ModelError: a conversation that cannot be scored.
        """
        answers = []
        for one in await self._queued(waiting):
            if isinstance(one, Exception):
                raise one
            answers.append(one)
        if learn and answers and self.settings.learn_window is not None:
            self._learn(gathered([(one.reward.scored, one.row) for one in answers]))
        return answers

    async def _queued(self, waiting: Sequence[Waiting]) -> "list[Answered | Exception]":
        return list(await asyncio.gather(*map(self._pass, waiting)))

    @_batched
    async def _pass(self, waiting: list[Waiting]) -> "list[Answered | Exception]":
        return await self.reward_waiting(waiting)

    async def reward_waiting(self, waiting: Sequence[Waiting]) -> "list[Answered | Exception]":
        """The rewards of answers that share a forward pass, by what the controls have learnt up to now.

        An answer without a reward has its error in its place and fails no other: they may be of other
        requests.
        """
        await self._load_newest()
        return await asyncio.to_thread(self._reward_isolated, self.state, [one.encoded for one in waiting])

    def _learn(self, scored: Scored) -> None:
        """Sends answers to the shared controls, without keeping those waiting who asked."""
        update = asyncio.ensure_future(self.controls.learn.remote(scored))
        # asyncio itself keeps no reference to a task: without this one it could be collected unfinished
        self.updates.add(update)
        update.add_done_callback(self.updates.discard)

    def _reward_isolated(
        self, state: LearntState, encoded: Sequence[Encoded]
    ) -> "list[Answered | Exception]":
        # each for itself: a pass does not know which answers are of one request
        results = isolated(partial(self._reward, state), encoded, range(len(encoded)))
        by_place = {one.place: one.result for part in results for one in part}
        return [by_place[place] for place in range(len(encoded))]

    def _reward(
        self, state: LearntState, encoded: Sequence[Encoded]
    ) -> Iterator[Sequence[ItemResult[Answered]]]:
        scored = self.reward.model.score_encoded(
            encoded, batch_tokens=self.settings.batch_tokens, on_nonfinite="keep"
        )
        batch = reward_batch(self.reward, state, scored)
        answers = batch.answers([len(one.input_ids) for one in encoded], cached=False)
        yield [ItemResult(place, one) for place, one in enumerate(answers)]

    async def _load_newest(self) -> None:
        """Loads what was learnt since the version held, never an older one."""
        # nothing changes any more: no call to another actor for every batch
        if self.state.version >= 0 and self.settings.learn_window is None:
            return
        newer: StateArrays | None = await self.controls.newer.remote(self.state.version)
        if newer is not None and newer.version < 0:
            newer = await self.controls.adopt.remote(self.state.learner, self.state.version)
        # asked again: replies come in any order, and another pass may have loaded a newer version meanwhile
        if newer is not None and newer.version > self.state.version:
            self.state = self.state.replaced(newer.arrays, newer.version)


def application(settings: RewardSettings) -> Any:
    """The replicas, bound to the controls that they share."""
    controls = serve.deployment(
        SharedControls, name="reward-state", num_replicas=1, max_ongoing_requests=_ONGOING
    )
    replica = serve.deployment(
        Replica,
        name="reward",
        num_replicas=settings.replicas,
        max_ongoing_requests=_ONGOING,
        ray_actor_options={
            "num_cpus": settings.cpus,
            **({"num_gpus": settings.gpus} if settings.gpus else {}),
        },
        health_check_period_s=2,
    )
    return replica.bind(settings, controls.bind(settings))
