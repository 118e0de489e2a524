"""Metamorphic tests of scoring where the memory runs out for real, in a process with a limit of its own."""

import subprocess
import sys

import pytest

from sarm_control.errors import ModelError
from sarm_control.reward_model.trunk.out_of_memory import compute_halving

pytestmark = pytest.mark.long

PROGRAM = """
import resource, sys
import numpy as np
import torch
from transformers import LlamaConfig, LlamaModel
from sarm_control.conversation import ChatTemplate, Encoded
from sarm_control.errors import ModelError
from sarm_control.lab.language.tokenizer import make_tokenizer
from sarm_control.reward_model import ClassifierConfig, LinearHead, Pooling, RewardModel, StateHead
from sarm_control.reward_model.trunk.trunk import Trunk

def status(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) * 1024

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=98_304, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128)
trunk = Trunk(LlamaModel(config), final_norm=True)
head = LinearHead(np.zeros(0, dtype=np.float32), own=StateHead(np.ones(32, dtype=np.float32)))
template = ChatTemplate(make_tokenizer(["a", "b"]), max_length=128, whole=True)
rm = RewardModel(ClassifierConfig(2, {}), trunk, None, head, template, pooling=Pooling("last_token"))
rows = [Encoded([4 + (3 * i + j) % 50 for j in range(32)], 3, 0, True) for i in range(16)]
before = rm.score_encoded(rows, batch_tokens=8 * 32).rewards
# What the halves need was there once, and the whole batch needs 290 MB more. Libraries keep some of what they
# took for the larger products, so the limit lies in the middle.
limit = status("VmPeak") + 145 * 2**20 if sys.argv[1] == "half" else status("VmSize:") + 80 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    after = rm.score_encoded(rows, batch_tokens=16 * 32).rewards
except ModelError as error:
    print("refused:", error, "|", error.hint)
else:
    print("largest difference below 1e-6:", bool(np.abs(after - before).max() < 1e-6))
"""


def run(which: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, check=True, timeout=120
    )


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are Linux's")
def test_a_batch_that_is_too_large_goes_on_in_halves_and_says_so() -> None:
    found = run("half")
    assert found.stdout == "largest difference below 1e-6: True\n"
    assert found.stderr.splitlines() == [
        "the memory ran out on 16 answers of 32 tokens: batches go on in halves "
        "(--batch-tokens 256 begins with them)"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process's memory are Linux's")
def test_halves_that_do_not_fit_are_refused() -> None:
    found = run("none")
    assert found.stdout == (
        "refused: the memory is not enough for 8 answers of 32 tokens | "
        "give --batch-tokens 128 or less, or a machine with more memory\n"
    )


def test_batches_after_the_one_that_failed_go_in_halves_too(capsys: pytest.CaptureFixture[str]) -> None:
    done: list[list[int]] = []

    def compute(rows: list[int]) -> None:
        if len(rows) > 2:
            raise MemoryError
        done.append(rows)

    compute_halving([[0, 1], [2, 3, 4], [5, 6], [7]], [9] * 8, compute)
    assert done == [[0, 1], [2, 3], [4], [5], [6], [7]]
    assert capsys.readouterr().err.count("\n") == 1


def test_one_answer_has_no_halves_and_other_errors_pass() -> None:
    def too_large(_: list[int]) -> None:
        raise MemoryError

    def other(_: list[int]) -> None:
        raise RuntimeError("sizes do not match")

    with pytest.raises(ModelError, match="the memory is not enough for 1 answer of 9 tokens") as refused:
        compute_halving([[0]], [9], too_large)
    assert "--dtype bfloat16" in str(refused.value.hint)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        compute_halving([[0, 1]], [9, 9], other)
