"""The optional packages that building needs, imported where they are used."""

from typing import Any

from sarm_control.extras import import_extra


def require_sae_lens() -> Any:
    """The `sae_lens` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("sae_lens", "build", needed="training an autoencoder needs sae_lens")


def require_peft() -> Any:
    """The `peft` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("peft", "rl", needed="tuning a trunk with LoRA needs peft")
