"""A reward manager for verl, registered there as `sarm`, that asks the server of `sarm serve`.

verl imports this module by the entry point group `verl.plugins`. It can also be named:
`reward.reward_manager.source=importlib`, `.name=SarmRewardManager`,
`.module.path=pkg://sarm_control.engines.verl_manager`.
"""

import asyncio
import json
import time
from typing import Any

import aiohttp
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.experimental.reward_loop.reward_manager.registry import register

from sarm_control.engines.server_client import Pause, Reply, ServerSettings, judge, logged
from sarm_control.engines.verl import PATH, VerlAnswer, prompt_in, request_of, rewards_of


@register("sarm")
class SarmRewardManager(RewardManagerBase):  # type: ignore[misc] # verl has no types
    """Asks the server once for every sample, without blocking the loop of verl's worker.

    Where the server is comes from `+reward.reward_kwargs.sarm.url=...` (also `token_file`, `timeout`,
    `patience`, `learn`) or from the environment, see `ServerSettings.from_environment`.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        del reward_router_address, reward_model_tokenizer
        super().__init__(config, tokenizer, compute_score)
        given = (config.reward.get("reward_kwargs") or {}).get("sarm") or {}
        with logged():
            self.server = ServerSettings.from_environment(**given)

    async def run_single(self, data: DataProto) -> dict[str, Any]:
        """The reward of one sample. Of several sequences the last is scored, as in verl's own managers.

        Raises:
            DataError: the sample has no prompt, or the server refuses the request.
            TrainingError: no answer before patience is over, or one that is not a finite number.
            ConfigError: a token or address that cannot be used.
        """
        with logged():
            answer = self.answer_of(data[-1:][0])
            found = await _post(self.server, request_of([answer]))
            reward = rewards_of(found, 1, self.server)[0]
        return {"reward_score": reward.score, "reward_extra_info": reward.extra}

    def answer_of(self, item: Any) -> VerlAnswer:
        """Prompt and answer of a sample; the answer ended if its last token is a special one."""
        responses = item.batch["responses"]
        # the mask is of prompt and answer; the answer is its end, padded on the right
        written = int(item.batch["attention_mask"][-responses.shape[-1] :].sum())
        ids = responses[:written].tolist()
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        ended = bool(ids) and ids[-1] in set(self.tokenizer.all_special_ids)
        return VerlAnswer(prompt_in(item.non_tensor_batch), text, ended)


async def _post(server: ServerSettings, payload: dict[str, Any]) -> Any:
    started, attempt = time.monotonic(), 0
    body = json.dumps(payload).encode()
    while True:
        reply = await _send(server, body)
        verdict = judge(server, PATH, reply, attempt, time.monotonic() - started)
        if not isinstance(verdict, Pause):
            return verdict
        await asyncio.sleep(verdict.seconds)
        attempt += 1


async def _send(server: ServerSettings, body: bytes) -> Reply:
    limit = aiohttp.ClientTimeout(total=server.timeout)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.post(server.url + PATH, data=body, headers=server.headers) as answer,
        ):
            return Reply(answer.status, await answer.read(), answer.headers.get("Retry-After"))
    except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
        return Reply(None, problem=f"{type(error).__name__}: {error}")
