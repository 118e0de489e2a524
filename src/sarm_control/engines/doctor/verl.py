"""Calls to the reward manager `sarm`, made as verl's own reward loop makes them; needs verl."""

import asyncio
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sarm_control.data import as_messages
from sarm_control.engines.doctor.examination import Call, DoctorSample
from sarm_control.engines.doctor.http import ServerPlace

MANAGER = "reward.reward_manager.name=sarm"


def verl_is_here() -> bool:
    """Whether verl is installed beside this package."""
    return importlib.util.find_spec("verl") is not None


@dataclass(frozen=True)
class VerlManager:
    """`run_single` of the manager, with a `DataProto` of one sample: token ids padded as in a batch."""

    place: ServerPlace
    name: str = MANAGER
    reports_end: bool = True

    def ask(self, samples: Sequence[DoctorSample]) -> list[Call]:
        """A call for each answer."""
        return asyncio.run(self._calls(samples))

    async def _calls(self, samples: Sequence[DoctorSample]) -> list[Call]:
        module = importlib.import_module("sarm_control.engines.verl_manager")
        config = importlib.import_module("omegaconf").OmegaConf.create(
            {"reward": {"reward_kwargs": {"sarm": self.place.settings()}}}
        )
        manager = module.SarmRewardManager(config, self.place.template.tokenizer, None)
        return [await self._call(manager, sample) for sample in samples]

    async def _call(self, manager: Any, sample: DoctorSample) -> Call:
        prompt, answer = self._ids(sample)
        fields = {"raw_prompt": [dict(turn) for turn in as_messages(sample.prompt)], "data_source": "lab"}
        got = await manager.run_single(_data(prompt, answer, fields))
        sent = {"raw_prompt": fields["raw_prompt"], "responses": answer}
        reward = got["reward_score"]
        number = float(reward) if isinstance(reward, int | float) else float("nan")
        return Call(sent, got, (number,), got["reward_extra_info"])

    def _ids(self, sample: DoctorSample) -> tuple[list[int], list[int]]:
        template = self.place.template
        answer = list(template.tokenizer(sample.response, add_special_tokens=False)["input_ids"])
        ended = [template.end_of_turn_id] if sample.ended else []
        return template.encode_prompt(sample.prompt), answer + ended


def _data(prompt: Sequence[int], answer: Sequence[int], fields: dict[str, Any]) -> Any:
    """One sample as verl's agent loop gives it, with its answer padded on the right."""
    import numpy as np
    import torch

    # some padding, so that a manager which reads the answer to the end of its row is caught
    padding = [0] * 4
    ids = torch.tensor([[*prompt, *answer, *padding]])
    batch = importlib.import_module("tensordict").TensorDict(
        {
            "prompts": torch.tensor([list(prompt)]),
            "responses": torch.tensor([[*answer, *padding]]),
            "attention_mask": torch.tensor([[1] * (len(prompt) + len(answer)) + padding]),
            "input_ids": ids,
            "position_ids": torch.arange(ids.shape[1])[None],
        },
        batch_size=1,
    )
    others: dict[str, Any] = {}
    for name, value in fields.items():
        # by hand, since NumPy would make a table of a list of messages
        others[name] = np.empty(1, dtype=object)
        others[name][0] = value
    return importlib.import_module("verl").DataProto(batch=batch, non_tensor_batch=others)
