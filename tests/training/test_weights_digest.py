"""Telling models apart: metamorphic (precision, changes), property of the digest."""

import torch
from torch import nn

from sarm_control.training.policy.weights_digest import weights_digest
from tests.training.tiny import tiny_model


def test_the_same_weights_are_the_same_in_another_precision_and_other_weights_are_not() -> None:
    model = tiny_model(0).bfloat16()
    digest = weights_digest(model)
    assert digest == weights_digest(tiny_model(0).bfloat16().float())
    assert digest != weights_digest(tiny_model(1).bfloat16())
    assert len(digest) == 16


def test_another_shape_another_name_or_one_changed_weight_is_another_model() -> None:
    layer = nn.Linear(8, 4)
    found = {weights_digest(layer), weights_digest(nn.Sequential(layer)), weights_digest(layer, layer)}
    with torch.no_grad():
        layer.weight[3, 7] += 1
    found.add(weights_digest(layer))
    wide = nn.Linear(4, 8)
    with torch.no_grad():
        wide.weight.copy_(layer.weight.reshape(8, 4))
    found.add(weights_digest(wide))
    assert len(found) == 5


def test_a_large_tensor_is_sampled_over_its_whole_length() -> None:
    layer = nn.Linear(1000, 100)
    before = weights_digest(layer)
    with torch.no_grad():
        layer.weight[90:] *= 2
    assert weights_digest(layer) != before
