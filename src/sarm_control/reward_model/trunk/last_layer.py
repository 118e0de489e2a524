"""A decoder's last layer at one position of each row, where nothing else of it is wanted.

A reward reads one state of an answer. In the last layer that state needs the keys and values of every
position, but the query, the attention and the feed-forward part of its own alone; the layers before need
everything. The numbers are those of the whole layer, but for the order in which float sums are taken.

Shapes: `B` answers, `T` tokens, `D` hidden size.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TESTED_TYPES = frozenset(
    {"llama", "mistral", "phi3", "qwen2", "qwen3", "gemma2", "gemma3_text", "granite", "olmo2", "smollm3"}
)
"""Model types whose layers take the arguments that `_narrowed` knows; the others compute the whole layer."""
MASKED_ATTENTION = frozenset({"eager", "sdpa"})
"""Attention that takes a mask of four dimensions; beside flash attention the whole layer is computed."""

_WANTED: ContextVar[Tensor | None] = ContextVar("wanted positions", default=None)
_HALF = (torch.bfloat16, torch.float16)
_LEAST_ROWS = 16
"""Of a product. Of fewer, libraries take the sums in another order, so that a state would depend on how many
answers are computed beside it. The layers before have a row for every token; these cost little."""


class _KeysAreThere(Exception):
    """The layer came as far as its keys and values."""


class _Keys:
    """In the place of a layer's cache: takes its keys and values, then gives them to every call."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if self._kept is None:
            self._kept = keys, values
            raise _KeysAreThere
        return self._kept


class _Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def prepare(model: "PreTrainedModel", last: nn.Module) -> None:
    """Makes the last layer heed `states_at`, if it is of a tested type; else it stays as it is."""
    if model.config.model_type in TESTED_TYPES:
        last.register_forward_pre_hook(_narrow, with_kwargs=True)


def states_at(
    trunk: nn.Module, input_ids: Tensor, attention_mask: Tensor | None, positions: Tensor
) -> Tensor:
    """The states of `trunk(input_ids, attention_mask)` at `positions` [B], as [B, D]; without gradients.

    A trunk whose last layer was not prepared computes all of them.
    """
    token = _WANTED.set(positions)
    try:
        with torch.no_grad():
            states: Tensor = trunk(input_ids, attention_mask)
    finally:
        _WANTED.reset(token)
    if states.shape[1] < input_ids.shape[1]:
        return states[:, 0]
    return _at(states, positions)


def _narrow(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call | None:
    """The layer's arguments for the wanted positions alone; None leaves them as they are."""
    positions, mask = _WANTED.get(), kwargs.get("attention_mask")
    if positions is None or not args or (mask is not None and mask.dim() != 4):
        return None
    config: Any = layer.get_submodule("self_attn").config
    if config._attn_implementation not in MASKED_ATTENTION:
        return None
    # transformers 5.24 renamed the argument; a model gives its layers the one they are to take
    cache = "past_key_values" if "past_key_values" in kwargs else "cache"
    keys = {cache: _Keys(), "use_cache": False}
    try:
        # A first call, for the keys and values of all positions: `_Keys` stops it before attention. By
        # `forward`, since calling the layer would run this hook again.
        layer.forward(*args, **{**kwargs, **keys})
    except _KeysAreThere:
        again = _again(args[0], positions, _times(args[0], positions))
        return _Call((again,), {**_narrowed(kwargs, args[0], positions), **keys})
    return None


def _narrowed(kwargs: Mapping[str, Any], states: Tensor, positions: Tensor) -> dict[str, Any]:
    cos, sin = kwargs["position_embeddings"]
    times = _times(states, positions)
    mask = kwargs.get("attention_mask")
    # [B, 1, T, T] has the positions that look third, and those they may see last
    seen = _seen(states, positions) if mask is None else _at(mask.transpose(1, 2), positions)[:, :, None]
    return {
        **kwargs,
        "attention_mask": seen,
        "position_ids": _again(kwargs["position_ids"], positions, times),
        "position_embeddings": (_again(cos, positions, times), _again(sin, positions, times)),
    }


def _seen(states: Tensor, positions: Tensor) -> Tensor:
    """What a causal layer lets positions see without padding on the left, [B, 1, 1, T].

    Always told: of several queries without a mask a layer takes each to see one place more than the last.
    """
    places = torch.arange(states.shape[1], device=states.device)
    return (places <= positions.to(states.device)[:, None])[:, None, None]


def _times(states: Tensor, positions: Tensor) -> int:
    """How often a row is computed: as few times as make `_LEAST_ROWS` rows.

    Half precision rounds by the number of rows beyond that too: there it is a multiple of it, whatever the
    number of answers.
    """
    least = _LEAST_ROWS if states.dtype in _HALF else -(-_LEAST_ROWS // len(positions))
    # fewer than T, by which `states_at` knows that the layer was narrowed
    return max(1, min(least, states.shape[1] - 1))


def _again(values: Tensor, positions: Tensor, times: int) -> Tensor:
    """[B, T, ...] and positions [B] to [B, C, ...], the same C times."""
    wanted = _at(values, positions)[:, None]
    return wanted.expand(-1, times, *wanted.shape[2:])


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """[B, T, ...], or [1, T, ...] for all rows, and positions [B] to [B, ...]."""
    values = values.expand(len(positions), *values.shape[1:])
    rows = torch.arange(len(positions), device=values.device)
    return values[rows, positions.to(values.device)]
