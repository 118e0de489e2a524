"""Whatever is written when the disk is full is named, with the reason (bad input)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sarm_control.comparison.ledger_table import write_ledger
from sarm_control.control import Edit, Penalty, save_edits
from sarm_control.control.state import ControlState
from sarm_control.data.files.writing import write_rows
from sarm_control.discovery.labels.chat_endpoint import TokenUsage
from sarm_control.discovery.labels.reply_cache import Replies
from sarm_control.engines.reward.learnt_state import keep_state
from sarm_control.errors import OutputError
from sarm_control.files import write_jsonl
from sarm_control.latents.human import HumanBuffer
from sarm_control.latents.shard import ShardBytes
from sarm_control.latents.writer import LatentsWriter
from sarm_control.reward_model.reward_model import RewardModel
from sarm_control.training.config.run_config import PolicyConfig
from sarm_control.training.monitor.ledger_file import Entry, append_ledger
from sarm_control.training.policy.policy import Policy
from sarm_control.training.run.checkpoint import save_checkpoint
from sarm_control.training.run.jsonl import append_rows
from tests.full_disk import no_file_above

FREE = 32


def _latents(path: Path) -> None:
    LatentsWriter(path, {}, 1).put(0, ShardBytes(bytes(1000), b""), rows=1, answers=1)


def _replies(path: Path) -> None:
    endpoint: Any = SimpleNamespace(model="m", usage=TokenUsage(), ask=lambda _: "x" * 1000)
    Replies(endpoint, path)("?")


WRITERS: dict[str, Callable[[Path], object]] = {
    "edits.json": lambda path: save_edits(path, [Edit(3, set=0.0)], fingerprint="abc", model="m"),
    "rows.jsonl": lambda path: write_jsonl(path, [{"a": "x" * 1000}]),
    "table.parquet": lambda path: write_rows(path, [{"a": "x" * 1000}]),
    "table.csv": lambda path: write_rows(path, [{"a": "x" * 1000}]),
    "table.jsonl.gz": lambda path: write_rows(path, [{"a": str(i)} for i in range(1000)]),
    "table.tsv.zst": lambda path: write_rows(path, [{"a": str(i)} for i in range(1000)]),
    "metrics.jsonl": lambda path: append_rows(path, [{"a": "x" * 1000}]),
    "human.safetensors": HumanBuffer((1,), np.arange(8, dtype=np.float32)[:, None], "abc").save,
    "learnt.safetensors": lambda path: keep_state(
        path, ControlState(targets=[Penalty(4, tau=0.1, target_rate=0.2)]), 1
    ),
    "ledger.parquet": lambda path: append_ledger(
        path, 1, [Entry("edits", None, None, None, None, 0.0, 1.0, 1.0)]
    ),
    "compared.parquet": lambda path: write_ledger(path, {"a": []}),
    "latents": _latents,
    "replies.jsonl": _replies,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_is_named(name: str, tmp_path: Path) -> None:
    if name == "latents":
        (tmp_path / name / ".progress").mkdir(parents=True)
    message = rf"^cannot write {tmp_path}/{name}.*: File too large$"
    with no_file_above(FREE), pytest.raises(OutputError, match=message) as told:
        WRITERS[name](tmp_path / name)
    assert told.value.hint == "make room for a file of that size (ulimit -f shows the limit)"


@pytest.mark.parametrize("size", [FREE, 2000, 4000])
def test_a_model_folder_that_does_not_fit_is_named(size: int, tmp_path: Path, tiny_sarm: RewardModel) -> None:
    """Whichever of its files is the one that does not fit: weights, settings or the tokenizer."""
    message = rf"^cannot write {tmp_path}/sarm: File too large$"
    with no_file_above(size), pytest.raises(OutputError, match=message):
        tiny_sarm.save_pretrained(tmp_path / "sarm")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [FREE, 2000])
def test_a_policy_that_does_not_fit_is_named(size: int, tmp_path: Path, tiny_policy_folder: Path) -> None:
    policy = Policy.load(PolicyConfig(model=str(tiny_policy_folder), lora=None), seed=0, device="cpu")
    message = rf"^cannot write {tmp_path}/policy: File too large$"
    with no_file_above(size), pytest.raises(OutputError, match=message):
        policy.save(tmp_path / "policy")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_does_not_fit_is_named(tmp_path: Path, tiny_sarm: RewardModel) -> None:
    """The tokenizer is written by a library in Rust, whose errors are no `OSError`."""
    from sarm_control.files import atomic_folder

    message = rf"^cannot write {tmp_path}/a: File too large$"
    with (
        no_file_above(FREE),
        pytest.raises(OutputError, match=message),
        atomic_folder(tmp_path / "a") as temporary,
    ):
        tiny_sarm.template.tokenizer.backend_tokenizer.save(str(temporary / "tokenizer.json"))


def test_a_checkpoint_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with (
        no_file_above(FREE),
        pytest.raises(OutputError, match=r"^cannot write .*/checkpoints/step-000001: File too large$"),
    ):
        save_checkpoint(tmp_path, 1, {"policy": {"a": torch.zeros(100)}}, {})


@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_standard_output_is_named() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sarm_control", "config", "schema"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to standard output: no space left on device\n"
