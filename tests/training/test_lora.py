"""Oracle: the fused LoRA layer computes what peft's own layer computes, forward and backward."""

import copy
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from sarm_control.training.config.run_config import LoraConfig
from sarm_control.training.policy.lora import active_adapter, add_adapters, few_rows
from sarm_control.training.policy.lora_linear import FusedLoraLinear
from tests.training.tiny import tiny_model


def _pair(dtype: torch.dtype, bias: bool) -> tuple[nn.Module, nn.Module]:
    """The fused layer, and peft's own with the same weights."""
    torch.manual_seed(3)
    layers: list[nn.Module] = []
    base = nn.Linear(24, 40, bias=bias, dtype=dtype)
    for kind in (FusedLoraLinear, peft.tuners.lora.Linear):
        settings = peft.LoraConfig(r=4, lora_alpha=12)
        layers.append(kind(copy.deepcopy(base), "default", config=settings, r=4, lora_alpha=12))
    fused, plain = layers
    for name in ("lora_A", "lora_B"):
        weight = torch.randn_like(getattr(plain, name)["default"].weight)
        for layer in layers:
            getattr(layer, name)["default"].weight.data = weight.clone()
    for layer in layers:
        layer.base_layer.requires_grad_(False)
    return fused, plain


def _gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    (layer(x) ** 2).sum().backward()
    grads = [x.grad, *(weight.grad for weight in layer.parameters() if weight.requires_grad)]
    return [grad for grad in grads if grad is not None]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24)])
def test_outputs_and_gradients_are_those_of_pefts_layer(shape: tuple[int, ...], bias: bool) -> None:
    fused, plain = _pair(torch.float32, bias)
    x = torch.randn(shape)
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-5, atol=1e-5)
    ours, theirs = _gradients(fused, x), _gradients(plain, x)
    assert len(ours) == len(theirs) == 3
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_it_is_nearer_to_the_exact_sum_than_pefts_layer() -> None:
    fused, plain = _pair(torch.bfloat16, bias=False)
    exact, x = copy.deepcopy(plain).float(), torch.randn(64, 24).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        ours, theirs = fused(x).float(), plain(x).float()
    with torch.no_grad():
        truth = exact(x.float())
    assert (ours - truth).abs().mean() <= (theirs - truth).abs().mean()
    assert (ours - truth).abs().mean() < 0.01 * truth.abs().mean()


def test_decoding_of_few_rows_is_the_same_function() -> None:
    fused, _ = _pair(torch.float32, bias=True)
    x = torch.randn(5, 1, 24)
    before = fused(x)
    with torch.no_grad(), few_rows(fused):
        after = fused(x)
    torch.testing.assert_close(after, before.detach(), rtol=1e-5, atol=1e-5)
    assert not fused.few_rows


def test_a_model_gets_the_fused_layer_and_without_its_adapter_is_the_base_to_the_bit() -> None:
    model = tiny_model()
    ids = torch.tensor([[0, 1, 2, 3, 2, 1]])
    before = model(input_ids=ids).logits
    adapted = add_adapters(model, LoraConfig(rank=4), 0)
    fused = [part for part in adapted.modules() if isinstance(part, FusedLoraLinear)]
    assert fused
    assert torch.equal(adapted(input_ids=ids).logits, before), "adapters change nothing at first"
    for part in fused:
        weights: Any = part.lora_B
        weights["default"].weight.data.normal_()
    assert not torch.equal(adapted(input_ids=ids).logits, before)
    with active_adapter(adapted, None):
        assert torch.equal(adapted(input_ids=ids).logits, before)
