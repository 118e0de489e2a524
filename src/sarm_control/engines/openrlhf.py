"""The reward as a Python file for OpenRLHF.

    --reward.remote_url "$(python -m sarm_control.engines.openrlhf)"

OpenRLHF loads the file by its path and calls `reward_func` once for each answer. The function asks the server
of `sarm serve`, as `--reward.remote_url http://.../get_reward` does. A URL alone lacks three things that it
adds: the token, patience with a server that is busy or down, and errors in the log `sarm_control.engines`.
(OpenRLHF itself logs them at level INFO and goes on without a reward.)
"""

from collections.abc import Sequence
from typing import Any

from sarm_control.engines.server_client import ServerSettings, finite, logged, post
from sarm_control.errors import TrainingError

PATH = "/get_reward"


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any
) -> dict[str, Any]:
    """Rewards of N answers, in OpenRLHF's form.

    Args:
        queries: [N] prompt and answer, with special tokens, as the policy saw and wrote them.
        prompts: [N] the prompt at the beginning of each.
        labels: [N] sent to the server, which does not use them.

    Returns:
        `rewards`, `scores` and the parts of the reward in `extra_logs`: numbers for one query, lists for
        several, under the same names every time.

    Raises:
        TrainingError: no answer before `SARM_REWARD_PATIENCE` is over, or one that is not a finite number.
        DataError: the server refuses the request.
        ConfigError: a setting, token or address that cannot be used.
    """
    with logged():
        settings = ServerSettings.from_environment()
    asked = {"query": list(queries), "prompts": list(prompts), "labels": list(labels)}
    found = post(settings, PATH, asked)
    where = f"{settings.url}{PATH}"
    with logged():
        if not isinstance(found, dict) or "rewards" not in found:
            raise TrainingError(f"{where} answered without rewards; is it `sarm serve`?")
        rewards = _like_queries(found["rewards"], len(queries), where)
        scores = _like_queries(found.get("scores", found["rewards"]), len(queries), where)
    return {"rewards": rewards, "scores": scores, "extra_logs": found.get("extra_logs") or {}}


def _like_queries(values: Any, count: int, where: str) -> float | list[float]:
    many = values if isinstance(values, list) else [values]
    if len(many) != count:
        raise TrainingError(f"{where} answered {len(many)} rewards for {count} answers")
    numbers = [finite(value, where) for value in many]
    # a number for one query, as the server's own route answers: OpenRLHF asks with one at a time
    return numbers[0] if count == 1 else numbers


if __name__ == "__main__":
    print(__file__)  # noqa: T201 - for the command line of OpenRLHF
