"""A classifier as TRL's trainer writes it (oracle: transformers' class on the ids TRL trains on)."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("trl", reason='needs the extra "trl"')

from datasets import Dataset
from transformers import AutoModelForSequenceClassification
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from sarm_control.reward_model import RewardModel
from tests.reward_model.classifiers import CHATML_STYLE, CONFIGS, NEWLINE, make_classifier, make_tokenizer

PAIRS = [
    (f"how do i {verb} the {thing} ?", thing) for verb in ("cook", "open") for thing in ("bread", "lock")
]


def turns(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def test_what_trl_trains_is_read_where_it_was_trained(tmp_path: Path) -> None:
    """Its pad is the end of turn and its template ends in a newline: the newline is what is read."""
    tokenizer = make_tokenizer(CHATML_STYLE, pad="<|end|>")
    rows = [
        {"chosen": turns(prompt, f"sorry i cannot {thing}"), "rejected": turns(prompt, f"sure {thing}")}
        for prompt, thing in PAIRS
    ]
    trainer = RewardTrainer(
        model=make_classifier(CONFIGS["llama"](pad_token_id=None)),
        args=RewardConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    prepared = trainer.train_dataset
    assert isinstance(prepared, Dataset)
    trained = [row["chosen_ids"] for row in prepared]
    trainer.train()
    trainer.save_model(str(tmp_path / "rm"))
    rm = RewardModel.from_pretrained(tmp_path / "rm")
    assert rm.gate is not None
    assert rm.gate.token == ("<newline>", NEWLINE)
    answers = [f"sorry i cannot {thing}" for _, thing in PAIRS]
    encoded = [rm.template.encode(prompt, answer) for (prompt, _), answer in zip(PAIRS, answers, strict=True)]
    assert [row.input_ids for row in encoded] == trained
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    with torch.no_grad():
        theirs = [model(torch.tensor([ids])).logits.item() for ids in trained]
    ours = rm.score([prompt for prompt, _ in PAIRS], answers).rewards
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
