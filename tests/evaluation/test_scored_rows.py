"""Scores of rows: a conversation that the chat template refuses is named by file and line."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sarm_control.cli import main
from sarm_control.conversation import ChatTemplate
from sarm_control.data.rows import read_rows
from sarm_control.errors import DataError
from sarm_control.evaluation.annotated_rows import score_rows
from sarm_control.reward_model import RewardModel
from sarm_control.reward_model.files.finite import NonFiniteError
from tests.conftest import make_sarm


def test_row_that_the_template_refuses_is_named(tiny_sarm: RewardModel, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(tiny_sarm.template.tokenizer)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    strict = RewardModel(
        tiny_sarm.config, tiny_sarm.trunk, tiny_sarm.autoencoder, tiny_sarm.head, ChatTemplate(tokenizer)
    )
    data = tmp_path / "data.jsonl"
    turn = {"role": "user", "content": "why ?"}
    prompts = ([turn], [{"role": "system", "content": "be brief ."}, turn])
    rows = [{"prompt": prompt, "response": "no"} for prompt in prompts]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        DataError, match=r"data\.jsonl:2: the chat template refuses this conversation: no system here"
    ):
        score_rows(strict, read_rows(data, want={"answer"}))


def test_a_reward_that_is_no_number_is_no_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One word overflows float16: the rows with it are named, whatever command scores them."""
    model = make_sarm()
    word = model.template.tokenizer.convert_tokens_to_ids("bomb")
    with torch.no_grad():
        model.trunk.get_parameter("model.embed_tokens.weight")[word] = 65_000
        model.trunk.get_parameter("model.layers.0.mlp.down_proj.weight")[:] *= 1_000
    folder = model.save_pretrained(tmp_path / "sarm")
    data = tmp_path / "data.jsonl"
    pairs = [
        {"prompt": "why ?", "chosen": "no", "rejected": answer} for answer in ("yes", "bomb", "the bomb")
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs))
    rows = read_rows(data, want={"pair"})
    assert np.isfinite(score_rows(model, rows).rewards).all()
    half = RewardModel.from_pretrained(folder, dtype="float16")
    said = (
        r"data\.jsonl:2: the reward of an answer is not a finite number \(2 of 6 answers\): "
        "the float16 trunk's state is not finite"
    )
    with pytest.raises(DataError, match=said) as raised:
        score_rows(half, rows)
    assert "--dtype float32" in str(raised.value.hint)
    for command in (["score"], ["rerank", "--edit", "3=0"], ["probe", "--edit", "3=0"]):
        options = ["--model", str(folder), "--dtype", "float16", "-o", str(tmp_path / "out")]
        assert main([*command, str(data), *options]) == 2
        assert "data.jsonl:2: the reward of an answer is not a finite number" in capsys.readouterr().err
    answers = [answer for row in rows for answer in row.answers]
    with pytest.raises(NonFiniteError, match=r"2 of 6 answers is not a finite number \(rows 3, 5, from 0\)"):
        half.score(["why ?"] * 6, answers)
    kept = half.score(["why ?"] * 6, answers, on_nonfinite="keep")
    assert np.flatnonzero(~np.isfinite(kept.rewards)).tolist() == [3, 5]
