"""Log-probabilities from a decoder's states, without holding the logits of a whole batch.

The logits of a batch, [M, V] in float32, would take more memory than the rest of a training pass.

Shapes: `M` answer tokens, `D` hidden size, `V` vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# [256, V] float32 logits are 131 MB at Llama 3's V = 128,256
LOGIT_CHUNK = 256


class TokenLogprobs(NamedTuple):
    """[M] float32 log-probabilities, and [M] entropies in nats if they were asked for."""

    logprobs: Tensor
    entropy: Tensor | None


class LanguageHead:
    """The output layer of a causal language model, in float32.

    Args:
        model: a transformers causal language model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._frozen: tuple[nn.Module, Tensor] | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[M, D] states to [M, V] float32 logits."""
        head = self._model.get_output_embeddings()
        # a float32 head is called as it is, so that hooks and adapters on it take part; so is one that was
        # given a product of its own, which is float32 too (`packed_products`)
        called = head.weight.dtype == torch.float32 or "forward" in vars(head)
        if type(head) is nn.Linear and called:
            return _scaled(head(hidden.float()), self._model.config)
        bias = None if head.bias is None else head.bias.float()
        return _scaled(nn.functional.linear(hidden.float(), self._weight(head), bias), self._model.config)

    def logprobs(
        self, hidden: Tensor, targets: Tensor, temperature: float, *, entropy: bool
    ) -> TokenLogprobs:
        """Log-probabilities of M tokens, `LOGIT_CHUNK` at a time.

        For the backward pass the logits of a chunk are not kept. Under a frozen head the derivative is taken
        in the forward pass; under a trained one the logits are computed again in the backward pass.

        Args:
            hidden: [M, D] the state each token was chosen in.
            targets: [M] the tokens.
            temperature: divides the logits.
            entropy: compute the entropy of each distribution too, without gradient.
        """
        chunk = self._chunk_with_gradient if torch.is_grad_enabled() else self._chunk
        chunks = [
            chunk(states, tokens, temperature, entropy)
            for states, tokens in zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
        ]
        entropies = [found[1] for found in chunks if found[1] is not None]
        return TokenLogprobs(
            torch.cat([found[0] for found in chunks]), torch.cat(entropies) if entropies else None
        )

    def _chunk(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        log_p = self._log_p(hidden, temperature)
        return log_p.gather(1, targets[:, None])[:, 0], _entropy(log_p.detach()) if entropy else None

    def _chunk_with_gradient(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        head, config = self._model.get_output_embeddings(), self._model.config
        trained = any(weight.requires_grad for weight in head.parameters())
        # the closed form below holds for a frozen head without a cap on its logits
        if trained or getattr(config, "final_logit_softcapping", None):
            arguments = (hidden, targets, temperature, entropy)
            # the generator's state need not be kept: nothing in the head is random
            again: tuple[Tensor, Tensor | None] = checkpoint(
                self._chunk, *arguments, use_reentrant=False, preserve_rng_state=False
            )
            return again
        with torch.no_grad():
            log_p = self._log_p(hidden, temperature)
            # now, since `_FrozenHead` overwrites log_p
            found = _entropy(log_p) if entropy else None
        scale = _scale(config) / temperature
        logprobs: Tensor = _FrozenHead.apply(hidden, log_p, targets, self._weight(head), scale)  # type: ignore[no-untyped-call]
        return logprobs, found

    def _log_p(self, hidden: Tensor, temperature: float) -> Tensor:
        logits = self.logits(hidden)
        return torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)

    def _weight(self, head: Any) -> Tensor:
        weight: Tensor = head.weight
        if weight.dtype == torch.float32:
            return weight
        # the float32 copy of a frozen half-precision head is made once and kept
        if self._frozen is None or self._frozen[0] is not head:
            self._frozen = head, weight.detach().float()
        return self._frozen[1]


class _FrozenHead(torch.autograd.Function):
    """The entry of one token a row in `log_p = log softmax(scale (h W^T + bias))`; `log_p` is overwritten.

    The derivative with respect to h is `scale (W_target - p W)`. It is taken in the forward pass, so that the
    backward pass needs neither the [M, V] logits nor a second product with them.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, log_p: Tensor, targets: Tensor, weight: Tensor, scale: float
    ) -> Tensor:
        logprobs = log_p.gather(1, targets[:, None])[:, 0]
        # [M, D], all that the backward pass needs
        ctx.save_for_backward((weight[targets] - log_p.exp_() @ weight).mul_(scale))
        ctx.dtype = hidden.dtype
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        # autograd wants the type of the states, which may be bfloat16
        return (grads[0][:, None] * slope).to(ctx.dtype), None, None, None, None


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """Scales and caps logits after the head, as Granite and Cohere (scale) and Gemma 2 (cap) do."""
    scale = _scale(config)
    if scale != 1:
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)


def _scale(config: Any) -> float:
    factor, divisor = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
    return float(factor / divisor)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)
