"""The actors behind `sarm_control.engines.ray`: replicas that score, the owner of what is learnt.

Imports Ray Serve; loaded inside Ray's workers.

Shapes: `N` answers.
"""

import asyncio
import copy
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from starlette.requests import Request
from starlette.responses import JSONResponse

from sarm_control.control.state import ControlState
from sarm_control.engines.opening import open_reward
from sarm_control.engines.ray import Answer, Paid, RewardSettings, require_serve
from sarm_control.errors import DataError, SarmError
from sarm_control.files import atomic_file
from sarm_control.sarm.reward_model import RewardModel
from sarm_control.sarm.scored import Scored

serve = require_serve()

_WHOLE = 100
_ONGOING = 1024
_VERSION = "learnt_batches"


class Waiting(NamedTuple):
    """An answer in the queue of a replica; `share` is its part of the token budget of a pass."""

    answer: Answer
    share: float


def share_of_budget(waiting: Sequence[Waiting]) -> int:
    """How much of a pass a batch fills, in hundredths of the token budget, padding included.

    One answer that is longer than the budget fills it.
    """
    filled = math.ceil(_WHOLE * len(waiting) * max(one.share for one in waiting))
    return min(filled, _WHOLE) if len(waiting) == 1 else filled


def _batched(function: Any) -> Any:
    """`serve.batch` by tokens; by a hundred answers where Ray cannot weigh them."""
    weighs = "batch_size_fn" in inspect.signature(serve.batch).parameters
    return serve.batch(max_batch_size=_WHOLE, **({"batch_size_fn": share_of_budget} if weighs else {}))(
        function
    )


class Learnt(NamedTuple):
    """What the controls have learnt after `version` times; -1 where no controls are known."""

    version: int
    arrays: dict[str, NDArray[Any]]


class Owner:
    """Owns what the controls learn; the only one that lets them learn.

    It holds no model: the first replica that is ready hands over its controls.

    Args:
        settings: when to learn, and where to keep it.
    """

    def __init__(self, settings: RewardSettings) -> None:
        self.settings = settings
        self.learner: ControlState | None = None
        self.version = 0
        self.window: list[Scored] = []
        self.turn = asyncio.Lock()

    async def newer(self, version: int) -> Learnt | None:
        """What was learnt, None where that is `version`; before any controls are known, version -1."""
        async with self.turn:
            return self._learnt() if version < 0 or version != self.version or self.learner is None else None

    async def adopt(self, offered: ControlState) -> Learnt:
        """Takes the controls of a replica where none are known yet, and says what was learnt."""
        async with self.turn:
            if self.learner is None:
                self.learner = copy.deepcopy(offered)  # what Ray hands over cannot be written to
                self._restore()
            return self._learnt()

    async def learn(self, scored: Scored) -> None:
        """Takes answers that were paid; every so many, the controls learn from them."""
        async with self.turn:
            self.window.append(scored)
            if self.learner is None or sum(map(len, self.window)) < (self.settings.learn_window or math.inf):
                return
            gathered, self.window = Scored.concatenate(self.window), []
            await asyncio.to_thread(self.learner.learn, gathered)
            self.version += 1
            await asyncio.to_thread(self._keep)

    def _learnt(self) -> Learnt:
        return Learnt(-1, {}) if self.learner is None else Learnt(self.version, self.learner.state_dict())

    def _restore(self) -> None:
        file = self.settings.state_file
        if self.learner is not None and file is not None and file.exists():
            arrays = load_file(file)
            self.version = int(arrays.pop(_VERSION))
            self.learner.load_state_dict(arrays)

    def _keep(self) -> None:
        if self.settings.state_file is None or self.learner is None:
            return
        arrays = {**self.learner.state_dict(), _VERSION: np.array(self.version)}
        with atomic_file(self.settings.state_file) as part:
            save_file(arrays, part)


class Replica:
    """Scores answers of many requests together.

    Args:
        settings: model, controls, budget.
        owner: handle of the `Owner`.
    """

    def __init__(self, settings: RewardSettings, owner: Any) -> None:
        self.settings = settings
        model = RewardModel.from_pretrained(
            settings.model, dtype=settings.dtype, device="cuda" if settings.gpus else "cpu"
        )
        self.reward = open_reward(model, settings.files, standardize=settings.standardize)
        self.owner = owner
        self.version = -1
        self._pass.set_batch_wait_timeout_s(settings.batch_wait)

    async def score(self, answers: Sequence[Answer]) -> list[Paid]:
        """What N answers are paid, in the order given.

        Raises:
            ModelError: a conversation the template refuses.
        """
        waiting = [Waiting(answer, self._share(answer)) for answer in answers]
        return list(await asyncio.gather(*map(self._pass, waiting)))

    async def __call__(self, request: Request) -> JSONResponse:
        """`POST /v1/score`, and `GET /healthz`."""
        if request.url.path.endswith("/healthz"):
            return JSONResponse({"status": "ok"})
        if not request.url.path.endswith("/v1/score"):
            return JSONResponse({"detail": f"no such path: {request.url.path}"}, 404)
        try:
            paid = await self.score(_answers(await request.body()))
        except SarmError as error:
            return JSONResponse({"detail": str(error)}, 422)
        return JSONResponse({"results": paid})

    def _share(self, answer: Answer) -> float:
        encoded = self.reward.model.template.encode(
            answer["prompt"], answer["response"], ended=answer["ended"]
        )
        return len(encoded.input_ids) / self.settings.batch_tokens

    @_batched
    async def _pass(self, waiting: list[Waiting]) -> list[Paid]:
        await self._take_up()
        answers = [one.answer for one in waiting]
        scored, paid = await asyncio.to_thread(self._pay, answers)
        if self.settings.learn_window is not None:
            await self.owner.learn.remote(scored)
        return paid

    def _pay(self, answers: Sequence[Answer]) -> tuple[Scored, list[Paid]]:
        scored = self.reward.model.score(
            [answer["prompt"] for answer in answers],
            [answer["response"] for answer in answers],
            ended=[answer["ended"] for answer in answers],
            batch_tokens=self.settings.batch_tokens,
        )
        rewards = self.reward.pay(scored)
        values = self.reward.values(rewards)
        paid = [
            Paid(
                reward=float(values[j]),
                terms={name: float(rewards.columns[name][j]) for name in self.reward.terms},
                truncated=int(scored.truncated[j]),
                version=max(self.version, 0),
            )
            for j in range(len(answers))
        ]
        return scored, paid

    async def _take_up(self) -> None:
        if self.version >= 0 and self.settings.learn_window is None:
            return
        found: Learnt | None = await self.owner.newer.remote(self.version)
        if found is not None and found.version < 0:
            found = await self.owner.adopt.remote(self.reward.learner)
        if found is not None:
            self.version = found.version
            self.reward.learner.load_state_dict(found.arrays)


def application(settings: RewardSettings) -> Any:
    """The replicas, bound to their owner."""
    owner = serve.deployment(Owner, name="reward-state", num_replicas=1, max_ongoing_requests=_ONGOING)
    replica = serve.deployment(
        Replica,
        name="reward",
        num_replicas=settings.replicas,
        max_ongoing_requests=_ONGOING,
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        health_check_period_s=2,
    )
    return replica.bind(settings, owner.bind(settings))


def _answers(body: bytes) -> list[Answer]:
    """The answers of a request: `prompts`, `responses` and, where some did not end, `ended`.

    Raises:
        DataError: it is not of that form.
    """
    try:
        found = json.loads(body)
    except ValueError as error:
        raise DataError(f"the request is not JSON: {error}") from error
    if not isinstance(found, Mapping) or set(found) - {"prompts", "responses", "ended"}:
        raise DataError("a request has the keys prompts, responses and, if need be, ended; no others")
    prompts, responses = found.get("prompts"), found.get("responses")
    if not isinstance(prompts, list) or not isinstance(responses, list):
        raise DataError("prompts and responses have to be lists")
    ended = found.get("ended", [True] * len(responses))
    if not isinstance(ended, list) or not len(prompts) == len(responses) == len(ended):
        raise DataError("prompts, responses and ended have to be lists of the same length")
    return [
        Answer(prompt=_prompt(prompt), response=_text(response), ended=bool(end))
        for prompt, response, end in zip(prompts, responses, ended, strict=True)
    ]


def _prompt(given: Any) -> Any:
    if not isinstance(given, list):
        return _text(given)
    if not given or not all(isinstance(turn, Mapping) and {"role", "content"} <= set(turn) for turn in given):
        raise DataError("a prompt is a string or a list of messages with role and content")
    return [{"role": _text(turn["role"]), "content": _text(turn["content"])} for turn in given]


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise DataError(f"{json.dumps(given)[:80]} is not a string")
    return given
