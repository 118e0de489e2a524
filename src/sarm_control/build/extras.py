"""The optional packages that building needs, imported where they are used."""

import importlib
import warnings
from typing import Any

from sarm_control.errors import MissingExtraError


def require_sae_lens() -> Any:
    """The `sae_lens` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return _require("sae_lens", "build", "training an autoencoder")


def require_peft() -> Any:
    """The `peft` package.

    Raises:
        MissingExtraError: it is not installed.
    """
    return _require("peft", "rl", "tuning a trunk with LoRA")


def _require(package: str, extra: str, purpose: str) -> Any:
    try:
        # SAELens pulls in libraries that warn on import about themselves, not about us.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {package}, which cannot be imported: {error}",
            hint=f'pip install "sarm-control[{extra}]"',
        ) from error
