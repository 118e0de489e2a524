"""Oracle: packed products are plain products, and the layers are left as they were."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sarm_control.training.config.run_config import LoraConfig
from sarm_control.training.policy import policy as policy_module
from sarm_control.training.policy.cpu_linear import can_pack, is_plain, packed_products
from sarm_control.training.policy.lora import POLICY, START, adapter_weights, add_adapters
from sarm_control.training.policy.policy import Policy
from tests.present import present
from tests.training.tiny import PROMPTS, template, tiny_model, tiny_policy

pytestmark = pytest.mark.skipif(not can_pack(), reason="PyTorch has no packed products on this processor")


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("rows", [(1,), (16, 1), (2, 3), (65,), (0,)], ids=str)
@pytest.mark.parametrize("outputs", [192, 37])
def test_packed_products_are_plain_products(outputs: int, rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(24, outputs, bias=bias), torch.randn(*rows, 24)
    with torch.no_grad():
        expected, doubled = layer(x), nn.functional.linear(x, 2 * layer.weight, layer.bias)
        with packed_products([layer], lambda one: one.weight.detach()):
            torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
            assert not is_plain(layer)
        with packed_products([layer], lambda one: 2 * one.weight.detach()):
            torch.testing.assert_close(layer(x), doubled, rtol=1e-5, atol=1e-5)
    assert is_plain(layer)


def test_a_layer_of_another_kind_is_not_plain() -> None:
    class Doubling(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    assert [is_plain(layer) for layer in (nn.Linear(8, 4), Doubling(8, 4), nn.Identity())] == [
        True,
        False,
        False,
    ]


def test_layers_are_left_as_they_were_when_a_weight_cannot_be_made() -> None:
    layers = [nn.Linear(8, 4), nn.Linear(8, 4)]

    def failing(layer: nn.Linear) -> Tensor:
        if layer is layers[1]:
            raise MemoryError
        return layer.weight.detach()

    with pytest.raises(MemoryError), packed_products(layers, failing):
        pass
    assert all(is_plain(layer) for layer in layers)


def _logits(policy: Policy, *, reference: bool = False) -> Tensor:
    inputs: dict[str, Any] = {"input_ids": torch.tensor([PROMPTS[0].ids]), "use_cache": False}
    with torch.no_grad():
        states = policy.states(reference=reference, **inputs).last_hidden_state[0]
        return policy.logits(states, reference=reference)


def test_decoding_packs_the_model_that_decodes_and_training_does_not() -> None:
    policy = tiny_policy()
    own, other = (
        [part for part in model.modules() if isinstance(part, nn.Linear)]
        for model in (policy.model, present(policy.reference))
    )
    plain = _logits(policy)
    with policy.decoding():
        assert not any(is_plain(layer) for layer in own)
        assert all(is_plain(layer) for layer in other)
        torch.testing.assert_close(_logits(policy), plain)
    with policy.decoding(reference=True):
        assert all(is_plain(layer) for layer in own)
        assert not any(is_plain(layer) for layer in other)
    assert all(is_plain(layer) for layer in (*own, *other))


def _adapted(dtype: torch.dtype, size: float) -> Policy:
    """A policy of bfloat16 weights with float32 adapters that are not zero."""
    torch.manual_seed(0)
    base: Any = tiny_model()
    model = add_adapters(base.to(dtype), LoraConfig(rank=4), 0)
    for weight in adapter_weights(model, POLICY).values():
        weight.data.normal_(0, size)
    return Policy(model, template(), autocast=dtype == torch.bfloat16)


def test_without_matrix_units_a_bfloat16_policy_decodes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same weights, widened, with the adapters, in float32 from end to end."""
    monkeypatch.setattr(policy_module, "has_tiles", lambda: False)
    policy = _adapted(torch.bfloat16, 0.2)
    before = {name: (weight, weight.clone()) for name, weight in policy.model.named_parameters()}
    trained, frozen = _logits(policy), _logits(policy, reference=True)
    wide = Policy(_adapted(torch.bfloat16, 0.2).model.float(), template())
    for reference, rounded in ((False, trained), (True, frozen)):
        exact = _logits(wide, reference=reference)
        with policy.decoding(reference=reference):
            packed = _logits(policy, reference=reference)
        torch.testing.assert_close(packed, exact, rtol=1e-5, atol=1e-5)
        # and the pass of training is what is rounded
        assert (rounded - exact).abs().max() > 100 * (packed - exact).abs().max()
    assert not torch.allclose(trained, frozen, atol=1e-2)
    for name, weight in policy.model.named_parameters():
        was, copied = before[name]
        assert weight is was
        assert weight.dtype == copied.dtype
        assert torch.equal(weight, copied)
    assert torch.equal(_logits(policy), trained)
    assert torch.equal(_logits(policy, reference=True), frozen)


def test_with_matrix_units_a_bfloat16_policy_decodes_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "has_tiles", lambda: True)
    policy = _adapted(torch.bfloat16, 0.2)
    assert not policy.packs
    assert _adapted(torch.float32, 0.2).packs
    plain = _logits(policy)
    with policy.decoding():
        assert all(is_plain(part) for part in policy.causal.modules() if type(part) is nn.Linear)
        torch.testing.assert_close(_logits(policy), plain, rtol=0.05, atol=0.05)


def test_a_reference_that_is_an_adapter_is_decoded_with_it() -> None:
    policy = _adapted(torch.float32, 0.2)
    model = policy.model
    model.add_adapter(START, model.peft_config[POLICY])
    for weight in adapter_weights(model, START).values():
        weight.data.normal_(0, 0.3)
    policy = Policy(model, template())
    trained, frozen = _logits(policy), _logits(policy, reference=True)
    assert not torch.allclose(trained, frozen, atol=1e-2)
    with policy.decoding():
        torch.testing.assert_close(_logits(policy), trained, rtol=1e-4, atol=1e-4)
    with policy.decoding(reference=True):
        torch.testing.assert_close(_logits(policy, reference=True), frozen, rtol=1e-4, atol=1e-4)


def test_an_adapter_on_a_layer_that_is_hooked_is_not_lost() -> None:
    policy = _adapted(torch.float32, 0.2)
    base: Any = next(part.base_layer for part in policy.model.modules() if hasattr(part, "base_layer"))
    plain = _logits(policy)
    vars(base)["forward"] = base.forward
    with policy.decoding():
        torch.testing.assert_close(_logits(policy), plain, rtol=1e-4, atol=1e-4)
    assert "forward" in vars(base)
