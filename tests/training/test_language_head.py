"""Oracle: log-probabilities and their derivatives are those of a plain log-softmax, however taken."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sarm_control.training.policy.language_head import LOGIT_CHUNK, LanguageHead

D, V = 16, 37


def _model(**config: float) -> Any:
    torch.manual_seed(0)
    head = nn.Linear(D, V, bias=True).requires_grad_(False)
    return SimpleNamespace(config=SimpleNamespace(**config), get_output_embeddings=lambda: head)


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """The model's own logits, written out."""
    config = model.config
    logits: Tensor = model.get_output_embeddings()(hidden)
    logits = logits * getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


CONFIGS: list[dict[str, float]] = [
    {},
    {"logit_scale": 0.25},
    {"logits_scaling": 8.0},
    {"final_logit_softcapping": 5.0},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: next(iter(config), "plain"))
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_log_probabilities_and_derivatives(
    config: dict[str, float], temperature: float, trained: bool
) -> None:
    model = _model(**config)
    model.get_output_embeddings().requires_grad_(trained)
    rows = LOGIT_CHUNK + 9
    hidden, targets, weight = 3 * torch.randn(rows, D), torch.randint(V, (rows,)), torch.randn(rows)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found = LanguageHead(model).logprobs(ours, targets, temperature, entropy=True)
    log_p = torch.log_softmax(_logits(model, theirs) / temperature, dim=-1)
    expected = log_p.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.logprobs, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropy, -(log_p.exp() * log_p).sum(-1).detach(), rtol=1e-4, atol=1e-5)
    (found.logprobs * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_with_and_without_gradient_agree_to_the_bit() -> None:
    head, hidden, targets = LanguageHead(_model(logit_scale=0.3)), torch.randn(9, D), torch.randint(V, (9,))
    with torch.no_grad():
        before = head.logprobs(hidden, targets, 0.7, entropy=False).logprobs
    after = head.logprobs(hidden.requires_grad_(), targets, 0.7, entropy=False).logprobs
    assert torch.equal(before, after.detach())
