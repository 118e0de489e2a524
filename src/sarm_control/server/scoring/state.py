"""A running server without HTTP: its reward, workers, cache and counters."""

import asyncio
import json
from collections.abc import Sequence

from sarm_control.engines import ControlledReward
from sarm_control.errors import ModelError
from sarm_control.reward_model import RewardModel
from sarm_control.server.http.metrics import Metrics
from sarm_control.server.http.problems import LOG, Refusal, log_unexpected, refusal_of
from sarm_control.server.scoring.batcher import Batcher, Closed, QueueFull
from sarm_control.server.scoring.cache import LatentCache
from sarm_control.server.scoring.control_state import Answered, VersionedControls
from sarm_control.server.scoring.conversations import Conversation, WholeText
from sarm_control.server.scoring.scorer import Scorer
from sarm_control.server.settings import ServiceSettings


class ServerState:
    """Everything a server holds.

    Args:
        reward: the model and its controls.
        settings: limits and switches.
        replicas: the same model on further devices, a worker each.

    Raises:
        ConfigError: controls a server cannot hold, see `VersionedControls`.
        ModelError: a replica with another head.
    """

    def __init__(
        self, reward: ControlledReward, settings: ServiceSettings, replicas: Sequence[RewardModel] = ()
    ) -> None:
        for replica in replicas:
            if replica.fingerprint != reward.model.fingerprint:
                raise ModelError("a replica has another head than the model")
        self.reward = reward
        self.settings = settings
        self.models = (reward.model, *replicas)
        self.terms = reward.terms
        self.metrics = Metrics()
        self.cache = LatentCache(settings.cache_bytes)
        self.controls = VersionedControls(
            reward, learns=settings.learn, every=settings.learn_every, state_file=settings.state_file
        )
        scorers = [
            Scorer(model, self.controls, self.cache, self.metrics, settings.batch_tokens)
            for model in self.models
        ]
        self.batcher: Batcher[Conversation, Answered] = Batcher(
            scorers, most_at_once=settings.most_at_once, most_waiting=settings.queue
        )
        self._watch()

    async def start(self) -> None:
        """Scores one conversation on each device, so that no caller has to wait; starts the workers."""
        await asyncio.to_thread(self._warm_up)
        self.batcher.start()

    async def stop(self) -> None:
        """Finishes accepted requests, for at most the timeout of a request, and ends the workers."""
        if not await asyncio.to_thread(self.batcher.close, self.settings.timeout):
            LOG.error("stopped before everything was answered")

    async def answer(self, conversations: Sequence[Conversation], *, learn: bool = True) -> list[Answered]:
        """The rewards of one request, in its order.

        Args:
            conversations: those of the request.
            learn: whether the controls may learn from them; they never do from a request that fails.

        Raises:
            Refusal: a conversation that cannot be scored, a full queue, no time left, or a server that stops.
        """
        self._check(conversations)
        waiting, answers = self._submit(conversations), list[Answered]()
        # numbered in the order of arrival, since the controls learn in that order
        number = self.controls.arrive()
        try:
            answers = await self._in_time(waiting)
        finally:
            # also where the request failed: all later ones wait for its number
            if self.controls.learns:
                await self._learn(number, answers if learn else ())
        self.metrics.answered(
            answers=len(answers),
            truncated=sum(answer.truncated > 0 for answer in answers),
            not_ended=sum(not answer.ended for answer in answers),
        )
        if self.settings.log_text:
            _log(conversations, answers)
        return answers

    def _submit(self, conversations: Sequence[Conversation]) -> "asyncio.Future[list[Answered]]":
        try:
            return self.batcher.submit(conversations)
        except QueueFull as full:
            # whole seconds, rounded up, or the caller would come back too early
            after = {"Retry-After": str(int(full.retry_after + 0.999))}
            raise Refusal(429, "the queue is full", "try again later", after) from None
        except Closed:
            raise Refusal(503, "the server is stopping", "ask another one", {"Retry-After": "5"}) from None

    async def _in_time(self, waiting: "asyncio.Future[list[Answered]]") -> list[Answered]:
        try:
            return await asyncio.wait_for(waiting, self.settings.timeout)
        # two classes before Python 3.11
        except (TimeoutError, asyncio.TimeoutError):
            message = f"no answer within {self.settings.timeout:g} s"
            raise Refusal(504, message, "send fewer answers at a time, or raise --timeout") from None
        except Exception as error:
            raise refusal_of(error) from None

    async def _learn(self, number: int, answers: Sequence[Answered]) -> None:
        """Lets the controls learn in a thread. An update that fails does not hold the rewards back."""
        answered = [(one.reward.scored, one.row) for one in answers]
        try:
            await asyncio.to_thread(self.controls.finish, number, answered)
        except Exception as error:
            self.metrics.update_failed()
            log_unexpected(error)

    def _check(self, conversations: Sequence[Conversation]) -> None:
        most = self.settings.most_answers
        if len(conversations) > most:
            message = f"{len(conversations)} answers in one request, at most {most} are taken"
            raise Refusal(413, message, "send fewer answers at a time")
        longest = max(map(_characters, conversations), default=0)
        if longest > self.settings.most_characters:
            limit = self.settings.most_characters
            message = f"a conversation of {longest} characters, at most {limit} are taken"
            raise Refusal(413, message, "shorten it; tokens beyond the context are not read anyway")

    def _warm_up(self) -> None:
        for model in self.models:
            model.score("warm", "up")

    def _watch(self) -> None:
        watch = self.metrics.watch
        watch("sarm_queue_answers", "Answers that wait.", lambda: float(self.batcher.waiting))
        watch("sarm_cache_entries", "Conversations whose latents are kept.", lambda: float(len(self.cache)))
        watch("sarm_cache_bytes", "Approximate bytes of the latents kept.", lambda: float(self.cache.size))
        watch(
            "sarm_human_kl_version",
            "Updates the controls have learnt from.",
            lambda: float(self.controls.version),
        )
        watch(
            "sarm_human_kl_nats",
            "KL divergence of recent answers from the demonstrations, at the last update.",
            lambda: self.controls.metrics.get("human_kl/kl", 0.0),
        )


def _characters(conversation: Conversation) -> int:
    if isinstance(conversation, WholeText):
        return len(conversation.text) + len(conversation.prompt or "")
    prompt = conversation.prompt
    turns = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
    return len(conversation.response) + sum(map(len, turns))


def _log(conversations: Sequence[Conversation], answers: Sequence[Answered]) -> None:
    for conversation, answer in zip(conversations, answers, strict=True):
        LOG.info("%s", json.dumps({**vars(conversation), "score": answer.value}, ensure_ascii=False))
