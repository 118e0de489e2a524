"""The reward as a Ray Serve deployment: replicas that score, and one actor whose controls learn.

    from ray import serve
    from sarm_control.server.ray import RewardSettings, reward_deployment

    handle = serve.run(reward_deployment(RewardSettings(model="lab", replicas=2)))

or, from a shell, `serve run sarm_control.server.ray:reward_deployment model=lab replicas=2`. Replicas
answer over HTTP in every form of `sarm serve`, and `handle.score.remote(answers)` inside Ray.
"""

import asyncio
import importlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sarm_control.errors import TrainingError

if TYPE_CHECKING:
    from ray.serve import Application
from sarm_control.server.ray.settings import AnswerReward, AnswerToScore, RewardSettings, require_serve


def reward_deployment(settings: RewardSettings) -> "Application":
    """An application for `serve.run`, `serve run` or the YAML of `serve deploy`.

    The controls learn in one actor. Replicas load what it has learnt before every batch, or once where
    nothing learns. Every answer has the version of the controls that it was rewarded by.

    Raises:
        MissingExtraError: Ray Serve is not installed.
    """
    require_serve()
    replica = importlib.import_module("sarm_control.server.ray.replica")
    application: Application = replica.application(settings)
    return application


async def ask(
    handle: Any, answers: Sequence[AnswerToScore], *, patience: float = 600.0
) -> list[AnswerReward]:
    """The rewards of N answers over a handle; asks again when the replica that worked on them is lost.

    Args:
        handle: as `serve.run` returns it.
        answers: [N].
        patience: seconds after which a lost replica is an error.

    Raises:
        TrainingError: no replica finished before `patience` was over.
        ModelError, DataError: as the replica raised it (inside Ray's own error).
    """
    lost = importlib.import_module("ray.exceptions").RayActorError
    until = time.monotonic() + patience
    while True:
        try:
            answer_rewards: list[AnswerReward] = await handle.score.remote(list(answers))
        except lost as error:
            if time.monotonic() > until:
                raise TrainingError(f"no replica stayed to score {len(answers)} answers: {error}") from error
            await asyncio.sleep(0.2)
        else:
            return answer_rewards
