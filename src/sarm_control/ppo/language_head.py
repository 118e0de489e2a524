"""From a decoder's states to log-probabilities, without ever holding the logits of a whole batch.

Shapes: `M` answer tokens, `D` hidden size, `V` vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LOGIT_CHUNK = 256


class TokenLogprobs(NamedTuple):
    """[M] float32 log-probabilities, and [M] entropies in nats where asked for."""

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
        bias = None if head.bias is None else head.bias.float()
        return _scaled(nn.functional.linear(hidden.float(), self._weight(head), bias), self._model.config)

    def logprobs(
        self, hidden: Tensor, targets: Tensor, temperature: float, *, entropy: bool
    ) -> TokenLogprobs:
        """Log-probabilities of M tokens, `LOGIT_CHUNK` at a time.

        With gradients the logits of a chunk are computed again in the backward pass rather than kept.

        Args:
            hidden: [M, D] the state each token was chosen in.
            targets: [M] the tokens.
            temperature: divides the logits.
            entropy: also the entropy of each distribution, without gradient.
        """
        with_gradient = torch.is_grad_enabled()
        chunks: list[tuple[Tensor, Tensor | None]] = []
        for states, tokens in zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True):
            arguments = (states, tokens, temperature, entropy)
            if with_gradient:
                chunk = checkpoint(self._chunk, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                chunk = self._chunk(*arguments)
            chunks.append(chunk)
        entropies = [chunk[1] for chunk in chunks if chunk[1] is not None]
        return TokenLogprobs(
            torch.cat([chunk[0] for chunk in chunks]), torch.cat(entropies) if entropies else None
        )

    def _chunk(
        self, hidden: Tensor, targets: Tensor, temperature: float, entropy: bool
    ) -> tuple[Tensor, Tensor | None]:
        logits = self.logits(hidden)
        log_p = torch.log_softmax(logits if temperature == 1 else logits / temperature, dim=-1)
        return log_p.gather(1, targets[:, None])[:, 0], _entropy(log_p.detach()) if entropy else None

    def _weight(self, head: Any) -> Tensor:
        weight: Tensor = head.weight
        if weight.dtype == torch.float32:
            return weight
        if self._frozen is None or self._frozen[0] is not head:
            self._frozen = head, weight.detach().float()
        return self._frozen[1]


def _scaled(logits: Tensor, config: Any) -> Tensor:
    """What Gemma 2, Granite and Cohere do to their logits after the head."""
    times, over = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
    if times != over:
        logits = logits * (times / over)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if not cap else cap * torch.tanh(logits / cap)


def _entropy(log_p: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(dim=-1)
