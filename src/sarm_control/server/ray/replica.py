"""The actors behind `sarm_control.server.ray.deployment`: replicas that score, the owner of what is learnt.

Imports Ray Serve; loaded inside Ray's workers.

Shapes: `N` answers.
"""

import asyncio
import copy
import inspect
import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse

from sarm_control.control import ControlState
from sarm_control.conversation import Encoded, Rendered, TemplatedText
from sarm_control.engines import check_served, keep_state, open_reward, take_up_state
from sarm_control.errors import SarmError
from sarm_control.reward_model import RewardModel, Scored
from sarm_control.server.ray.requests import FORMS, problem, read_json, teaches
from sarm_control.server.ray.settings import Answer, Paid, RewardSettings, require_serve

serve = require_serve()

_logger = logging.getLogger("sarm_control.engines")
_WHOLE = 100
_ONGOING = 1024


class Waiting(NamedTuple):
    """A conversation in the queue of a replica.

    `share` is its part of the token budget of a pass; `teaches` whether the controls may learn from it.
    """

    encoded: Encoded
    share: float
    teaches: bool = True


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
        return None if self.learner is not None and version == self.version else self._learnt()

    async def adopt(self, offered: ControlState) -> Learnt:
        """Takes the controls of a replica where none are known yet, and says what was learnt."""
        if self.learner is None:
            self.learner = copy.deepcopy(offered)  # what Ray hands over cannot be written to
            self._restore()
        return self._learnt()

    async def learn(self, scored: Scored) -> None:
        """Takes answers that were paid; every so many, the controls learn from them.

        Until they have, replicas go on with what was learnt before.
        """
        self.window.append(scored)
        async with self.turn:
            if self.learner is None or sum(map(len, self.window)) < (self.settings.learn_window or math.inf):
                return
            gathered, self.window = Scored.concatenate(self.window), []
            learner = copy.deepcopy(self.learner)
            await asyncio.to_thread(learner.learn, gathered)
            await asyncio.to_thread(self._keep, learner, self.version + 1)
            self.learner, self.version = learner, self.version + 1

    def _learnt(self) -> Learnt:
        return Learnt(-1, {}) if self.learner is None else Learnt(self.version, self.learner.state_dict())

    def _restore(self) -> None:
        file = self.settings.state_file
        if self.learner is not None and file is not None and file.exists():
            self.version = take_up_state(file, self.learner)

    def _keep(self, learner: ControlState, version: int) -> None:
        if self.settings.state_file is not None:
            keep_state(self.settings.state_file, learner, version)


class Replica:
    """Scores answers of many requests together.

    Args:
        settings: model, controls, budget.
        owner: handle of the `Owner`.
    """

    def __init__(self, settings: RewardSettings, owner: Any) -> None:
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
        self.owner = owner
        self.version = -1
        self.lessons: set[asyncio.Future[None]] = set()
        self._pass.set_batch_wait_timeout_s(settings.batch_wait)

    async def score(self, answers: Sequence[Answer]) -> list[Paid]:
        """What N answers are paid, in the order given.

        Raises:
            ModelError: a conversation the template refuses.
            ArithmeticError: a reward that is no finite number.
        """
        return await self._queued(self.waiting(answers))

    def waiting(self, answers: Sequence[Answer]) -> list[Waiting]:
        """Answers as they wait for a pass.

        Raises:
            ModelError: a conversation the template refuses.
        """
        render = self.reader.template.render
        return self._weighed([render(one["prompt"], one["response"], ended=one["ended"]) for one in answers])

    async def __call__(self, request: Request) -> JSONResponse:
        """`POST` to `/v1/score`, `/get_reward` (OpenRLHF) or `/rm` (slime), and `GET /healthz`."""
        if request.url.path.endswith("/healthz"):
            return JSONResponse({"status": "ok"})
        form = next((form for path, form in FORMS.items() if request.url.path.endswith(path)), None)
        if form is None:
            return JSONResponse({"error": f"no such path: {request.url.path}"}, 404)
        try:
            rendered = form.read(read_json(await request.body()), self.reader)
            waiting = self._weighed(rendered, teaches=teaches(request.headers))
            return JSONResponse(form.write(await self._queued(waiting)))
        except (SarmError, ArithmeticError) as error:
            if isinstance(error, ArithmeticError):
                _logger.exception("no reward")
            told = problem(error)
            return JSONResponse(told.body, told.status)

    def _weighed(self, rendered: Sequence[Rendered], *, teaches: bool = True) -> list[Waiting]:
        budget = self.settings.batch_tokens
        encoded = self.reader.template.encode_rendered(rendered)
        return [Waiting(one, len(one.input_ids) / budget, teaches) for one in encoded]

    async def _queued(self, waiting: Sequence[Waiting]) -> list[Paid]:
        return list(await asyncio.gather(*map(self._pass, waiting)))

    @_batched
    async def _pass(self, waiting: list[Waiting]) -> list[Paid]:
        return await self.pay(waiting)

    async def pay(self, waiting: Sequence[Waiting]) -> list[Paid]:
        """Answers that share a pass, by what the owner has learnt up to now."""
        await self._take_up()
        scored, paid = await asyncio.to_thread(self._pay, [one.encoded for one in waiting])
        rows = [row for row, one in enumerate(waiting) if one.teaches]
        if self.settings.learn_window is not None and rows:
            self._teach(scored.take(np.array(rows)))
        return paid

    def _teach(self, scored: Scored) -> None:
        """Hands answers to the owner while those who asked get theirs."""
        lesson = asyncio.ensure_future(self.owner.learn.remote(scored))
        self.lessons.add(lesson)
        lesson.add_done_callback(self.lessons.discard)

    def _pay(self, encoded: Sequence[Encoded]) -> tuple[Scored, list[Paid]]:
        scored = self.reward.model.score_encoded(
            encoded, batch_tokens=self.settings.batch_tokens, on_nonfinite="keep"
        )
        rewards = self.reward.pay(scored)
        values = self.reward.values(rewards)
        if not np.isfinite(values).all():
            raise ArithmeticError("a reward is not a finite number")
        paid = [
            Paid(
                score=float(values[j]),
                terms={name: float(rewards.columns[name][j]) for name in self.reward.terms},
                ended=bool(scored.ended[j]),
                truncated=int(scored.truncated[j]),
                tokens=len(encoded[j].input_ids),
                human_kl_version=max(self.version, 0),
            )
            for j in range(len(scored))
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
        ray_actor_options={
            "num_cpus": settings.cpus,
            **({"num_gpus": settings.gpus} if settings.gpus else {}),
        },
        health_check_period_s=2,
    )
    return replica.bind(settings, owner.bind(settings))
