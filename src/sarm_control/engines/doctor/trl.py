"""Calls to a TRL reward, made as the GRPO and RLOO trainers make them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sarm_control.engines.doctor.examination import (
    SAMPLES,
    AdapterExamination,
    Call,
    DoctorSample,
    Point,
    examine,
)
from sarm_control.engines.trl import TrlReward


class TrlAdapter:
    """A batch in one call, in the keyword arguments of TRL's `_calculate_rewards`.

    TRL decodes conversations to messages and plain prompts to strings, and a data set has only one kind. Here
    a batch has both, which checks more.
    """

    reports_end = True
    name = "GRPOTrainer, RLOOTrainer: reward_funcs"

    def __init__(self, reward: TrlReward) -> None:
        self.reward = reward

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """One call for all answers."""
        from transformers import TrainerState

        logs: dict[str, float] = {}
        sent: dict[str, Any] = {
            "prompts": [sample.prompt for sample in samples],
            "completions": [_completion(sample) for sample in samples],
            "completion_ids": [self._ids(sample) for sample in samples],
            "label": [f"a column of the data set, row {row}" for row in range(len(samples))],
        }
        hooks: dict[str, Any] = {
            "trainer_state": TrainerState(),
            "log_extra": lambda column, values: None,  # noqa: ARG005 - TRL's own names
            "log_metric": logs.__setitem__,
        }
        got = self.reward(**sent, **hooks)
        return [Call(sent, got, tuple(float(value) for value in got), logs)]

    def _ids(self, sample: DoctorSample) -> list[int]:
        template = self.reward.reward.model.template
        ids = list(template.tokenizer(sample.response, add_special_tokens=False)["input_ids"])
        return [*ids, template.end_of_turn_id] if sample.ended else ids


def examine_trl(reward: TrlReward) -> AdapterExamination:
    """Uses a reward as a trainer does: evaluation, one training step, saving and resuming.

    Args:
        reward: a new one; afterwards its controls have learnt from the built-in answers.
    """
    adapter = TrlAdapter(reward)
    policy = _policy()
    tokenizer = reward.reward.model.template.tokenizer
    # as the trainer does before its first step: the reward learns here what ends an answer
    reward.callback.on_init_end(model=policy, processing_class=tokenizer)
    found = examine(adapter, reward.reward)
    # the call itself failed: every further point would fail by the same error
    if not found.calls:
        return found
    got = found.calls[0].got
    kind = Point("a list of float, as long as prompts", _is_list_of_float(got), f"list of {len(got)}")
    points = (kind, *found.points, _evaluation(adapter, policy), *_step(adapter, policy))
    return AdapterExamination(found.adapter, found.calls, points)


def _evaluation(adapter: TrlAdapter, policy: Any) -> Point:
    """All calls so far were outside of a step."""
    reward = adapter.reward.reward
    policy.eval()
    adapter.ask(SAMPLES)
    return Point(
        "nothing is learnt in evaluation", reward.learnt_batches == 0, f"{reward.learnt_batches} updates"
    )


def _step(adapter: TrlAdapter, policy: Any) -> list[Point]:
    reward, callback = adapter.reward.reward, adapter.reward.callback
    callback.on_step_begin(model=policy.train())
    adapter.ask(SAMPLES)
    callback.on_step_end()
    updates, learns = reward.learnt_batches, "learn" if reward.learns else "have nothing that learns"
    before = {name: array.tobytes() for name, array in reward.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        callback.save(Path(folder))
        adapter.reward.load(folder)
    after = {name: array.tobytes() for name, array in reward.state_dict().items()}
    return [
        Point("a training step is one update", updates == 1, f"{updates} update; these controls {learns}"),
        Point(
            "what was learnt survives a checkpoint", before == after, f"{len(after)} arrays written and read"
        ),
    ]


def _completion(sample: DoctorSample) -> Any:
    plain = isinstance(sample.prompt, str)
    return sample.response if plain else [{"role": "assistant", "content": sample.response}]


def _is_list_of_float(values: Any) -> bool:
    are_floats = isinstance(values, list) and all(type(value) is float for value in values)
    return are_floats and len(values) == len(SAMPLES)


def _policy() -> Any:
    """A stand-in for the policy: a module that is in training or in evaluation mode."""
    import torch

    return torch.nn.Linear(1, 1)
