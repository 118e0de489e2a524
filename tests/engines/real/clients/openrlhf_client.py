"""OpenRLHF's own executor over answers that are given instead of generated; JSON on stdin and stdout.

Run in the environment of OpenRLHF; imports nothing of this repository.
"""

import asyncio
import json
import sys
from types import SimpleNamespace

from openrlhf.utils.agent import SingleTurnAgentExecutor
from transformers import AutoTokenizer


class Given:
    """Stands where vLLM's engine does: generates the answer it was given."""

    def __init__(self, ids: list[int], ended: bool) -> None:
        self.output = SimpleNamespace(
            token_ids=ids, finish_reason="stop" if ended else "length", logprobs=None, text=""
        )

    async def generate(self, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(outputs=[self.output])


async def main(asked: dict) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(asked["tokenizer"])
    executor = SingleTurnAgentExecutor(asked["remote_url"].split(","))
    params = SimpleNamespace(max_tokens=64, logprobs=None)

    async def one(case: dict) -> dict:
        found = await executor.execute(
            case["prompt"],
            case.get("label"),
            params,
            4096,
            tokenizer,
            Given(case["answer_ids"], case["ended"]),
        )
        return {key: found[key] for key in ("reward", "scores", "extra_logs")}

    return list(await asyncio.gather(*map(one, asked["cases"])))


if __name__ == "__main__":
    print("ANSWERS " + json.dumps(asyncio.run(main(json.load(sys.stdin)))))  # noqa: T201
