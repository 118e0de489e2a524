"""Values of a `config.json` that a trunk is made by: their types and ranges, each refused by its name.

transformers checks few of them, and what it lets pass becomes NaN, another model or a traceback.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sarm_control.errors import ModelError

ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Attention that a checkpoint may ask for; any other name may be code to download."""
FLOATS = ("float32", "bfloat16", "float16", "float64", "auto")
"""Types of weights that a configuration may name."""

_LARGEST = 1 << 31
COUNT = f"a whole number in 1..{_LARGEST}"
"""What `is_count` holds for, in words."""

_COUNTS = (
    "hidden_size",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "num_labels",
)
_POSITIVE = (
    "rope_theta",
    "rope_local_base_freq",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "partial_rotary_factor",
    "logit_scale",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
)
_NOT_NEGATIVE = ("initializer_range",)
_SHARES = ("attention_dropout", "hidden_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop")
_FLAGS = (
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "use_cache",
    "use_sliding_window",
    "use_qk_norm",
    "is_decoder",
)
_ROPE = ("rope_scaling", "rope_parameters")
_ROPE_COUNTS = ("original_max_position_embeddings",)
_ROPE_POSITIVE = (
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "rope_theta",
    "partial_rotary_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
)
_ATTENTION_KEYS = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def check_trunk_values(raw: Mapping[str, Any], name: str) -> None:
    """Refuses values that no model of the type can have.

    Args:
        raw: the dict in `config.json`; that of the text model inside it is checked as well.
        name: what to call the model in errors.

    Raises:
        ModelError: naming the key, the value and what it should be.
    """
    for key in _COUNTS:
        _check(raw, key, name, is_count, COUNT)
    for key in _POSITIVE:
        _check(raw, key, name, _is_positive, "a number above 0")
    for key in _NOT_NEGATIVE:
        _check(raw, key, name, lambda value: _is_number(value) and value >= 0, "a number of at least 0")
    for key in _SHARES:
        _check(raw, key, name, lambda value: _is_number(value) and 0 <= value <= 1, "a number in 0..1")
    for key in _FLAGS:
        _check(raw, key, name, lambda value: isinstance(value, bool), "true or false")
    for key in ("dtype", "torch_dtype"):
        _check(raw, key, name, lambda value: value in FLOATS, f"one of {', '.join(FLOATS)}")
    for key in _ROPE:
        _check_rope(raw.get(key), key, name)
    check_attention(raw, name)
    _check_heads(raw, name)
    inner = raw.get("text_config")
    if isinstance(inner, Mapping):
        check_trunk_values(inner, f"{name} (text_config)")


def check_attention(raw: Mapping[str, Any], name: str) -> None:
    """Refuses attention by a name that is not known here: it could be code to download.

    Raises:
        ModelError: naming key and value.
    """
    for key in _ATTENTION_KEYS:
        _check(raw, key, name, lambda value: value in ATTENTIONS, f"one of {', '.join(ATTENTIONS)}")


def refuse_quantised(raw: Mapping[str, Any], name: str) -> None:
    """Refuses a configuration of quantised weights, whose latents would be others than the released ones.

    Raises:
        ModelError: naming the method.
    """
    found = raw.get("quantization_config")
    if found is not None:
        method = found.get("quant_method") if isinstance(found, Mapping) else found
        raise ModelError(
            f"{name}: config.json says that the weights are quantised ({_shown(method)}), and a SARM is not "
            "read from such",
            hint="give the checkpoint that was not quantised",
        )


def refused(key: str, value: Any, name: str, wanted: str) -> ModelError:
    """The error about one value of `config.json`."""
    return ModelError(f"{name}: {key} in config.json is {_shown(value)}, it must be {wanted}")


def is_count(value: Any) -> bool:
    """Whether it is a whole number, written as one, of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST


def _check(
    raw: Mapping[str, Any],
    key: str,
    name: str,
    good: Callable[[Any], bool],
    wanted: str,
    *,
    within: str = "",
) -> None:
    value = raw.get(key)
    if value is not None and not good(value):
        raise refused(within + key, value, name, wanted)


def _check_rope(rope: Any, key: str, name: str) -> None:
    """Rotary scaling, or one for each kind of layer."""
    if rope is None:
        return
    if not isinstance(rope, Mapping):
        raise refused(key, rope, name, "an object or null")
    for inner, value in rope.items():
        if isinstance(value, Mapping):
            _check_rope(value, f"{key}.{inner}", name)
    for inner in _ROPE_COUNTS:
        _check(rope, inner, name, is_count, COUNT, within=f"{key}.")
    for inner in _ROPE_POSITIVE:
        _check(rope, inner, name, _is_positive, "a number above 0", within=f"{key}.")
    # Llama 3's scaling divides by their difference
    low, high = rope.get("low_freq_factor"), rope.get("high_freq_factor")
    if low is not None and high is not None and low >= high:
        raise refused(f"{key}.high_freq_factor", high, name, f"above low_freq_factor, {low}")


def _check_heads(raw: Mapping[str, Any], name: str) -> None:
    heads, shared = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
    # each key-value head serves equally many query heads
    if heads is not None and shared is not None and heads % shared:
        raise refused("num_key_value_heads", shared, name, f"a divisor of num_attention_heads, {heads}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < float("inf")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
