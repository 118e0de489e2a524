"""Oracle: products in blocks are plain products, and the layers are left as they were."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sarm_control.training.policy.cpu_linear import block_size, blocked_linear, blocked_products
from tests.present import present
from tests.training.tiny import PROMPTS, tiny_policy


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("rows", [(1,), (16, 1), (2, 3), (64,), (65,), (0,)], ids=str)
@pytest.mark.parametrize("outputs", [192, 128, 32, 37])
def test_products_in_blocks_are_plain_products(outputs: int, rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, outputs, bias=bias), torch.randn(*rows, 24)
    found = blocked_linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(found, layer(x), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous()


def test_every_thread_has_a_block_or_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for threads in (1, 2, 3, 5, 50):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        sizes[threads] = block_size(torch.randn(3, 8), torch.randn(192, 8))
    assert sizes == {1: 96, 2: 96, 3: 48, 5: 32, 50: 0}


def test_other_layers_and_other_types_are_left_alone() -> None:
    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layers = [nn.Linear(8, 32), Doubling(8, 32), nn.Linear(8, 32, dtype=torch.bfloat16)]
    x = torch.randn(3, 8)
    before = [layer(x.to(layer.weight.dtype)) for layer in layers]
    with blocked_products(layers):
        assert [("forward" in vars(layer)) for layer in layers] == [True, False, True]
        for layer, expected in zip(layers, before, strict=True):
            torch.testing.assert_close(layer(x.to(layer.weight.dtype)), expected)
    assert not any("forward" in vars(layer) for layer in layers)


def test_decoding_makes_its_products_in_blocks_and_training_does_not() -> None:
    policy = tiny_policy()
    models = (policy.model, present(policy.reference))
    layers = [part for model in models for part in model.modules() if isinstance(part, nn.Linear)]
    inputs: dict[str, Any] = {"input_ids": torch.tensor([PROMPTS[0].ids]), "use_cache": False}
    plain = policy.logits(policy.states(**inputs).last_hidden_state[0])
    with policy.decoding():
        assert all("forward" in vars(layer) for layer in layers)
        torch.testing.assert_close(policy.logits(policy.states(**inputs).last_hidden_state[0]), plain)
    assert not any("forward" in vars(layer) for layer in layers)
