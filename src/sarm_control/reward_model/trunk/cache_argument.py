"""What transformers calls the argument that takes a cache of keys and values."""

import inspect
from typing import Any


def cache_argument(model: Any) -> str:
    """`cache` from transformers 5.24 on, `past_key_values` before.

    Args:
        model: a decoder without its head, whose `forward` names the argument. `generate` of the model above
            it takes the same name: the other only brings a warning, or is not known yet.
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
