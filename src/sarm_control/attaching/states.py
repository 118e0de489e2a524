"""States behind the final norm: where the reward is read, and at the ends of turns and sentences.

They are stored in parts of some answers each, under a key of all they depend on, so that an interrupted
collection goes on where it stopped.

Shapes: `N` answers, `S` other states, `B` answers of a batch, `T` tokens, `D` hidden size.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sarm_control.build import (
    BATCH_TOKENS,
    Conversation,
    load_states,
    save_states,
    sentence_positions,
    trunk_fingerprint,
)
from sarm_control.console import Advance, ProgressFactory, no_progress
from sarm_control.conversation import Encoded
from sarm_control.errors import DataError, ModelError
from sarm_control.reward_model import RewardModel, length_sorted_batches, pad_batch

FORMAT = "attach-1"
PART = 512
"""Answers of a part of the cache: an interrupted collection loses one at most."""


@dataclass(frozen=True)
class PooledStates:
    """States of N answers.

    Args:
        pooled: [N, D] float32, where the reward is read.
        others: [S, D] float32, at the ends of sentences and of earlier turns; S may be 0.
        others_answer: [S] int64, the answer each belongs to.
        truncated: answers that lost tokens from the left.
        lengths: [N] int64, tokens of each answer without its end.
    """

    pooled: Tensor
    others: Tensor
    others_answer: NDArray[np.int64]
    truncated: int
    lengths: NDArray[np.int64]


def collect_pooled_states(
    model: RewardModel,
    answers: Sequence[Conversation],
    *,
    others: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    cache: Path | None = None,
    progress: ProgressFactory = no_progress,
) -> PooledStates:
    """Runs a reward model's trunk once over every answer; with `cache`, a second call reads files.

    Args:
        model: with a linear head over its own state.
        answers: N conversations.
        others: also keep states at sentence ends and earlier ends of turns.
        batch_tokens: rows times longest row of a batch.
        cache: folder for the states, or None to keep nothing.
        progress: counts answers.

    Raises:
        DataError: no answers.
        ModelError: a state is not finite, or the token that the reward is read at is not there.
    """
    if not answers:
        raise DataError("no answers to read states from", hint="give files whose rows have answers")
    encoded = [model.template.encode(answer.prompt, answer.response) for answer in answers]
    trunk = None if cache is None else trunk_fingerprint(model.trunk)
    found: list[Mapping[str, Tensor]] = []
    with progress("States", len(encoded)) as advance:
        for start in range(0, len(encoded), PART):
            part = encoded[start : start + PART]
            key = None if trunk is None else _key(model, trunk, part, others, batch_tokens)
            states = None if cache is None or key is None else load_states(cache, key)
            if states is None:
                states = _forward(model, part, start, others, batch_tokens, advance)
                if cache is not None and key is not None:
                    save_states(cache, key, states)
            else:
                advance(len(part))
            # a part counts its answers from 0, so that its file does not depend on what comes before it
            found.append({**states, "answer": states["answer"] + start})
    return PooledStates(
        torch.cat([states["pooled"] for states in found]).float(),
        torch.cat([states["others"] for states in found]).float(),
        np.asarray(torch.cat([states["answer"] for states in found]).numpy(), dtype=np.int64),
        sum(row.truncated > 0 for row in encoded),
        np.array([row.answer_length for row in encoded], dtype=np.int64),
    )


def _key(
    model: RewardModel, trunk: str, rows: Sequence[Encoded], others: bool, batch_tokens: int
) -> dict[str, str | int | bool]:
    ids = hashlib.sha256()
    for row in rows:
        ids.update(json.dumps([row.input_ids, row.prompt_length]).encode())
    return {
        "format": FORMAT,
        "trunk": trunk,
        "dtype": str(next(model.trunk.parameters()).dtype),
        "pooling": f"{model.pooling.rule} {model.pooling.token}",
        "token_ids": ids.hexdigest(),
        "answers": len(rows),
        "others": others,
        # other batches have other padding, by which half precision rounds otherwise
        "batch_tokens": batch_tokens,
    }


@torch.no_grad()
def _forward(
    model: RewardModel,
    rows: Sequence[Encoded],
    first: int,
    others: bool,
    batch_tokens: int,
    advance: Advance,
) -> dict[str, Tensor]:
    trunk, template = model.trunk, model.template
    norm = trunk.final_norm
    if norm is None:
        raise ModelError("states behind the final norm are wanted, and this trunk ends before it")
    kept: list[Tensor] = [torch.empty(0)] * len(rows)
    for batch in length_sorted_batches([len(row.input_ids) for row in rows], batch_tokens):
        padded = pad_batch([rows[j].input_ids for j in batch], template.pad_id, device=trunk.device)
        read = model.pooling.positions(padded).tolist()
        # padding is on the right, where no token looks
        states = trunk(padded.input_ids, None)
        for row, j in enumerate(batch):
            inner = other_positions(model, rows[j], int(read[row])) if others else []
            # only wanted positions are kept: all states of a corpus would not fit in memory
            kept[j] = norm(states[row, [int(read[row]), *inner]].float()).cpu()
        advance(len(batch))
    # before anything is cached: a NaN would be served from the file ever after
    for j, one in enumerate(kept):
        if not bool(torch.isfinite(one).all()):
            raise ModelError(f"the state of answer {first + j} is not finite", hint="try --dtype float32")
    counts = torch.tensor([len(one) - 1 for one in kept])
    return {
        "pooled": torch.stack([one[0] for one in kept]),
        "others": torch.cat([one[1:] for one in kept]),
        "answer": torch.repeat_interleave(torch.arange(len(kept)), counts),
    }


def other_positions(model: RewardModel, row: Encoded, read: int) -> list[int]:
    """Sentence ends of the answer, and in earlier turns the tokens at the place that is read in the last one.

    Args:
        model: whose template wrote the row.
        row: a conversation.
        read: the position that the reward is read at.
    """
    end, ids = model.template.end_of_turn_id, row.input_ids
    turns = [position for position, token in enumerate(ids) if token == end]
    # ChatML's closing newline, say, is one behind the end of turn; so it is in earlier turns
    behind = read - turns[-1] if turns else 0
    earlier = [position + behind for position in turns[:-1] if 0 <= position + behind < len(ids)]
    inside = sentence_positions(model.template, row)
    return sorted({*earlier, *inside} - {read})
