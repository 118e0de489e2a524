"""Answers to one prompt: keys and values of the prompt's tokens are computed once, not once an answer.

Shapes: `B` answers to one prompt, `T` tokens, `P` tokens of the prompt, `D` hidden size.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sarm_control.conversation import Encoded
from sarm_control.reward_model.trunk.batching import Padded
from sarm_control.reward_model.trunk.cache_argument import cache_argument
from sarm_control.reward_model.trunk.last_layer import MASKED_ATTENTION, TESTED_TYPES
from sarm_control.reward_model.trunk.trunk import Trunk


def can_share(trunk: Trunk) -> bool:
    """Whether a trunk's states of an answer behind a stored prompt are those of the whole row.

    In half precision they are not: sums over fewer tokens are rounded otherwise.
    """
    config = trunk.model.config
    known = config.model_type in TESTED_TYPES and config._attn_implementation in MASKED_ATTENTION
    return known and all(weight.dtype == torch.float32 for weight in trunk.parameters())


def rows_of_one_prompt(encoded: Sequence[Encoded], batch_tokens: int) -> list[list[int]]:
    """Batches of consecutive rows whose prompts are the same tokens and at least half of each row.

    Args:
        encoded: N rows.
        batch_tokens: the budget of rows times the longest row; two rows are always taken.
    """
    batches: list[list[int]] = []
    for _, run in groupby(range(len(encoded)), key=lambda row: _prompt(encoded[row])):
        rows = [row for row in run if _is_worth_it(encoded[row])]
        # longest first, so that a batch's first row says how many fit
        rows.sort(key=lambda row: (-len(encoded[row].input_ids), row))
        while len(rows) > 1:
            most = max(2, batch_tokens // len(encoded[rows[0]].input_ids))
            batches.append(rows[:most])
            rows = rows[most:]
    return batches


def states_behind(trunk: Trunk, batch: Padded, prompt: int, positions: Tensor) -> Tensor:
    """What `trunk.states_at` gives, [B, D], of rows [B, T] padded on the right that begin alike.

    Args:
        trunk: of a type for which `can_share`.
        batch: whose first `prompt` tokens are the same in every row.
        prompt: P, 1 or more.
        positions: [B], all of them P or later.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=trunk.model.config)
    kept: dict[str, Any] = {cache_argument(trunk.model): cache, "use_cache": True}
    with torch.no_grad():
        # no mask in either pass: rows begin together and padding is on the right, where no token looks
        trunk.model(input_ids=batch.input_ids[:1, :prompt], **kept)
        cache.batch_repeat_interleave(len(batch.input_ids))
        output = trunk.model(input_ids=batch.input_ids[:, prompt:], **kept)
        rows = torch.arange(len(positions), device=positions.device)
        # the second pass has only the columns behind the prompt
        states: Tensor = output.last_hidden_state[rows, positions - prompt]
        return states if trunk.final_norm is None else trunk.final_norm(states.float())


def _prompt(row: Encoded) -> tuple[int, ...]:
    return tuple(row.input_ids[: row.prompt_length])


def _is_worth_it(row: Encoded) -> bool:
    return 0 < row.prompt_length < len(row.input_ids) <= 2 * row.prompt_length
