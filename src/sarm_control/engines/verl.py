"""The reward in verl: requests of its reward manager and its reward function to the server of `sarm serve`.

This module imports nothing of verl. The manager needs verl and is in `verl_manager`; verl finds it by the
entry point `verl.plugins`. Prefer the manager: verl does not tell the function whether an answer ended, and
versions other than 0.9 do not give it the prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sarm_control.engines.server_client import SETTINGS, ServerSettings, finite, logged, post
from sarm_control.errors import DataError, TrainingError

PATH = "/v1/score"
_PROMPT_KEYS = ("raw_prompt", "prompt", "question")


class VerlAnswer(NamedTuple):
    """One answer to be scored; `ended` is false where it hit its length limit."""

    prompt: str | list[dict[str, Any]]
    response: str
    ended: bool = True


class Reward(NamedTuple):
    """The reward of one answer, and the numbers that verl logs beside it."""

    score: float
    extra: dict[str, float]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, float]:
    """The reward of one answer, for `reward.custom_reward_function`.

    Args:
        data_source: not used.
        solution_str: the answer, without special tokens.
        ground_truth: not used.
        extra_info: holds the prompt as `raw_prompt` (verl 0.9 puts it there), `prompt` or `question`.
        settings: `url`, `token_file`, `timeout`, `patience`, `learn`, from `reward_kwargs`; keys that verl
            adds are ignored.

    Returns:
        `score`, and the parts of the reward by their names.

    Raises:
        DataError: there is no prompt, or the server refuses the request.
        TrainingError: no answer before patience is over, or one that is not a finite number.
        ConfigError: a setting, token or address that cannot be used.
    """
    del data_source, ground_truth
    known = {key: settings[key] for key in SETTINGS if key in settings}
    with logged():
        server = ServerSettings.from_environment(**known)
        answer = VerlAnswer(prompt_in(extra_info or {}), solution_str)
    found = post(server, PATH, request_of([answer]))
    with logged():
        reward = rewards_of(found, 1, server)[0]
    return {"score": reward.score, **reward.extra}


def prompt_in(fields: Mapping[str, Any]) -> str | list[dict[str, Any]]:
    """The prompt among the fields of a sample: a string or messages.

    Raises:
        DataError: no field holds one.
    """
    for key in _PROMPT_KEYS:
        found = fields.get(key)
        if isinstance(found, str):
            return found
        if found is not None and len(found):
            return [dict(message) for message in found]
    raise DataError(
        f"no prompt in {sorted(fields)}: a reward model scores an answer to a prompt; keep raw_prompt "
        "(data.return_raw_chat=True) or put the prompt into extra_info"
    )


def request_of(answers: Sequence[VerlAnswer]) -> dict[str, Any]:
    """The body of a request for N answers."""
    return {
        "prompts": [answer.prompt for answer in answers],
        "responses": [answer.response for answer in answers],
        "ended": [answer.ended for answer in answers],
    }


def rewards_of(found: Any, count: int, server: ServerSettings) -> list[Reward]:
    """The rewards of N answers, from the server's JSON.

    Raises:
        TrainingError: there are not N of them, or one is not a finite number.
    """
    where = f"{server.url}{PATH}"
    results = found.get("results") if isinstance(found, Mapping) else None
    if not isinstance(results, list) or len(results) != count:
        raise TrainingError(f"{where} did not answer {count} rewards; is it `sarm serve`?")
    try:
        return [Reward(finite(one["score"], where), _numbers(one)) for one in results]
    except (KeyError, TypeError) as error:
        raise TrainingError(
            f"{where} answered without {error}; is it `sarm serve` of this version?"
        ) from error


def _numbers(one: Mapping[str, Any]) -> dict[str, float]:
    """The parts of a reward by the names they have in `metrics.jsonl`; they sum to `reward/total`."""
    amounts = {f"reward/penalty/{latent}": amount for latent, amount in one["penalties"].items()}
    amounts |= {"reward/human_kl": one["human_kl"], "reward/missing_end": one["missing_end"]}
    shaped = {"reward/shaping": one["shaping"]} if one.get("shaping") is not None else {}
    return {
        "reward/model": one["reward_model"],
        "reward/edits": one["edited"] - one["reward_model"],
        # not `-amount`, which would log a penalty that did not act as -0.0
        **{name: 0.0 - amount for name, amount in amounts.items()},
        **shaped,
        "reward/total": one["total"],
        "human_kl/version": float(one["human_kl_version"]),
        "truncated": float(one["truncated"]),
        "ended": float(one["ended"]),
    }
