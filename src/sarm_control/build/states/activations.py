"""States of the trunk at the end of turn, and at the ends of the answers' sentences.

Shapes: `N` answers, `S` sentence ends, `B` answers of a batch, `T` tokens, `D` hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sarm_control.build.states.cache import Key, load_states, save_states, states_key
from sarm_control.build.states.texts import Conversation
from sarm_control.console import ProgressFactory, no_progress
from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.errors import DataError, ModelError
from sarm_control.reward_model import Trunk, length_sorted_batches, pad_batch

BATCH_TOKENS = 8192
_SENTENCE_ENDS = (".", "!", "?", "\n")


@dataclass(frozen=True)
class AnswerStates:
    """States of N answers.

    Args:
        end_of_turn: [N, D] float32, at the last end-of-turn token of each answer.
        sentences: [S, D] float32, at the tokens of answers that end a sentence; S may be 0.
        sentence_answer: [S] int64, the answer each sentence belongs to.
        truncated: answers that lost tokens from the left.
    """

    end_of_turn: torch.Tensor
    sentences: torch.Tensor
    sentence_answer: NDArray[np.int64]
    truncated: int


def collect_states(
    trunk: Trunk,
    template: ChatTemplate,
    answers: Sequence[Conversation],
    *,
    sentence_states: bool = True,
    batch_tokens: int = BATCH_TOKENS,
    cache: Path | None = None,
    progress: ProgressFactory = no_progress,
) -> AnswerStates:
    """Runs the trunk once over every answer; with `cache`, a second call reads the file of the first.

    Args:
        trunk: what to run; its weights are part of the cache's key.
        template: turns an answer into token ids.
        answers: N conversations.
        sentence_states: also keep the states at sentence ends.
        batch_tokens: rows times longest row of a batch.
        cache: folder for the states, or None to keep nothing.
        progress: counts answers.

    Raises:
        DataError: no answers.
        ModelError: a state of the trunk is not finite.
    """
    if not answers:
        raise DataError("no answers to read states from", hint="give files whose rows have answers")
    encoded = [template.encode(answer.prompt, answer.response) for answer in answers]
    key = states_key(trunk, [row.input_ids for row in encoded], sentence_states, batch_tokens)
    found = None if cache is None else _cached(cache, key)
    if found is None:
        found = _forward(trunk, template, encoded, sentence_states, batch_tokens, progress)
        if cache is not None:
            save_states(cache, key, found)
    # the cached file may be that of a build which kept sentence states too
    kept = slice(None) if sentence_states else slice(0)
    return AnswerStates(
        found["end_of_turn"].float(),
        found["sentences"][kept].float(),
        found["sentence_answer"][kept].numpy(),
        sum(row.truncated > 0 for row in encoded),
    )


def sentence_positions(template: ChatTemplate, row: Encoded) -> list[int]:
    """Positions inside the answer whose token's text ends a sentence (`.`, `!`, `?` or a newline)."""
    return [
        position
        for position in range(row.prompt_length, len(row.input_ids) - 1)
        if _ends_sentence(template.tokenizer, row.input_ids[position])
    ]


def _ends_sentence(tokenizer: Any, token: int) -> bool:
    text: str = tokenizer.decode([token])
    return text.rstrip(" \t").endswith(_SENTENCE_ENDS)


def _cached(folder: Path, key: Key) -> dict[str, torch.Tensor] | None:
    """The states under the key, or under the key of a run that kept sentence states too."""
    found = load_states(folder, key)
    return load_states(folder, {**key, "sentence_states": True}) if found is None else found


def _forward(
    trunk: Trunk,
    template: ChatTemplate,
    encoded: Sequence[Encoded],
    sentence_states: bool,
    batch_tokens: int,
    progress: ProgressFactory,
) -> dict[str, torch.Tensor]:
    wanted = [_wanted_positions(template, row, sentence_states) for row in encoded]
    kept: list[torch.Tensor] = [torch.empty(0)] * len(encoded)
    batches = length_sorted_batches([len(row.input_ids) for row in encoded], batch_tokens)
    with progress("Trunk states", len(encoded)) as advance, torch.no_grad():
        for batch in batches:
            padded = pad_batch([encoded[j].input_ids for j in batch], template.pad_id, device=trunk.device)
            states = trunk(padded.input_ids, padded.attention_mask)
            # only the wanted positions are copied: all states of a corpus would not fit in memory
            for row, j in enumerate(batch):
                kept[j] = states[row, wanted[j]].cpu()
            advance(len(batch))
    return _checked(kept)


def _wanted_positions(template: ChatTemplate, row: Encoded, sentence_states: bool) -> list[int]:
    # the last token is the end of turn: this template writes nothing behind it
    inside = sentence_positions(template, row) if sentence_states else []
    return [*inside, len(row.input_ids) - 1]


def _checked(kept: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    for j, states in enumerate(kept):
        if not bool(torch.isfinite(states).all()):
            raise ModelError(f"the trunk's state of answer {j} is not finite", hint="try --dtype float32")
    answers = torch.repeat_interleave(torch.arange(len(kept)), torch.tensor([len(s) - 1 for s in kept]))
    return {
        "end_of_turn": torch.stack([states[-1] for states in kept]),
        "sentences": torch.cat([states[:-1] for states in kept]),
        "sentence_answer": answers,
    }
