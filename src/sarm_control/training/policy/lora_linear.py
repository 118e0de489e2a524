"""A linear layer with LoRA adapters whose low-rank product is added in place, forward and backward.

peft's own layer computes the low-rank product at full width, scales it and adds it: two further passes over
the output in each direction, on machines that are bound by memory. Here the sums are taken inside the matrix
products. Decoding on a CPU uses float32 factors, since for a few rows oneDNN's bfloat16 kernels spend more
time on preparation than on arithmetic.

Shapes: `M` rows (tokens), `K` inputs, `N` outputs, `R` rank.
"""

from typing import Any

import peft
import torch
from torch import Tensor, nn

# With more rows the bfloat16 kernels are faster.
_MOST_ROWS = 64


class FusedLoraLinear(peft.tuners.lora.Linear):
    """peft's LoRA layer with another forward pass; names, merging and saving are peft's."""

    few_rows = False
    """Set while decoding, when no gradient is needed (`training.policy.lora.few_rows`)."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., K] to [..., N]: the frozen layer plus the product of the active adapter."""
        base: Any = self.base_layer
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = type(base) is nn.Linear and not base.weight.requires_grad
        # whatever is not one plain active adapter on a frozen layer is left to peft
        if self.disable_adapters or self.merged or args or kwargs or len(names) != 1 or not plain:
            out: Tensor = super().forward(x, *args, **kwargs)
            return out
        down: Any = self.lora_A[names[0]]
        up: Any = self.lora_B[names[0]]
        a, b, scaling = down.weight, up.weight, self.scaling[names[0]]
        flat = x.reshape(-1, x.shape[-1])
        product: Tensor
        if self.few_rows and len(flat) <= _MOST_ROWS and x.device.type == "cpu":
            product = base(flat)
            product.add_(flat.float() @ a.float().t() @ b.float().t(), alpha=scaling)
        else:
            flat, weight, a, b = (tensor.to(_compute_dtype(base)) for tensor in (flat, base.weight, a, b))
            product = _LoraProduct.apply(flat, weight, base.bias, a, b, scaling)  # type: ignore[no-untyped-call]
        return product.view(*x.shape[:-1], -1)


class _LoraProduct(torch.autograd.Function):
    """`x W^T + bias + scaling (x A^T) B^T` with a frozen W; gradients to x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scaling: float
    ) -> Tensor:
        low = x @ a.t()
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scaling = scaling
        return nn.functional.linear(x, weight, bias).addmm_(low, b.t(), alpha=scaling)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight, a, b, low = ctx.saved_tensors
        # d/dx = g W + s (g B) A;  d/dA = s (g B)^T x;  d/dB = s g^T (x A^T)
        grad_low = (grad @ b).mul_(ctx.scaling)
        grad_x = (grad @ weight).addmm_(grad_low, a) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_low.t() @ x, (grad.t() @ low).mul_(ctx.scaling), None


def _compute_dtype(layer: nn.Linear) -> torch.dtype:
    # cast by hand: autocast skips in-place sums, and it is off in the backward pass, whose factors must fit
    kind = layer.weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
