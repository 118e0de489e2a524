"""Scores of rows: a conversation that the chat template refuses is named by file and line."""

import copy
import json

import pytest

from sarm_control.conversation import ChatTemplate
from sarm_control.conversation.rows import read_rows
from sarm_control.errors import DataError
from sarm_control.evaluation.scored_rows import score_rows
from sarm_control.sarm import RewardModel


def test_row_that_the_template_refuses_is_named(tiny_sarm, tmp_path):
    tokenizer = copy.deepcopy(tiny_sarm.template.tokenizer)
    refusal = "{% if messages[0]['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    strict = RewardModel(
        tiny_sarm.config, tiny_sarm.trunk, tiny_sarm.autoencoder, tiny_sarm.head, ChatTemplate(tokenizer)
    )
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": [{"role": role, "content": "why ?"}], "response": "no"} for role in ("user", "tool")]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"data\.jsonl:2: the chat template refuses this conversation: no tools here"
    ):
        score_rows(strict, read_rows(data, want={"answer"}))
