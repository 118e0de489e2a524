"""Shared by the control specifications: one-line errors, numbers in text, closest names."""

import difflib
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import ConfigDict, ValidationError

from sarm_control.errors import ConfigError

SPEC = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
"""Unknown keys, NaN and infinities are refused in every specification."""

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")

T = TypeVar("T")


def one_line_errors(kind: str) -> Callable[[type[T]], type[T]]:
    """A class decorator: constructing the pydantic dataclass directly raises `ConfigError`.

    Inside a pydantic model the class is validated without its `__init__`, so there a mistake stays
    a validation error with its place in the file.

    Args:
        kind: the word for the class in messages, such as `edit`.
    """

    def decorate(cls: type[T]) -> type[T]:
        validated = cls.__init__

        @functools.wraps(validated)
        def init(self: T, *args: Any, **kwargs: Any) -> None:
            try:
                validated(self, *args, **kwargs)
            except ValidationError as error:
                raise config_error(error, kind, getattr(cls, "__dataclass_fields__", ())) from None

        cls.__init__ = init  # type: ignore[assignment]
        return cls

    return decorate


def config_error(error: ValidationError, kind: str, names: Iterable[str]) -> ConfigError:
    """The first mistake of a pydantic error as one line, with the closest key for an unknown one."""
    known = list(names)
    # a misspelled key also makes its right name missing; the misspelling is the cause, so it is reported
    first = min(error.errors(), key=lambda mistake: mistake["type"] not in _UNKNOWN)
    cause = first.get("ctx", {}).get("error")
    # pydantic calls an argument that was given by position by its number
    path = [known[part] if i == 0 and isinstance(part, int) else part for i, part in enumerate(first["loc"])]
    if isinstance(cause, ConfigError):
        return ConfigError(f"{_dotted(path)}: {cause}" if path else str(cause), hint=cause.hint)
    if first["type"] in _UNKNOWN:
        return unknown_key(" ".join([kind, _dotted(path[:-1])]).strip(), str(path[-1]), known)
    if first["type"].startswith("missing"):
        return ConfigError(f"{kind}: {_dotted(path)} is missing")
    reason = str(cause) if cause else first["msg"][:1].lower() + first["msg"][1:]
    return ConfigError(f"{kind}: {_dotted(path)} is {first['input']!r}, {reason}")


def _dotted(path: Sequence[int | str]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def unknown_key(kind: str, key: str, names: Iterable[str]) -> ConfigError:
    """An error for a key that does not exist, which suggests the closest one and lists all."""
    known = list(names)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    guess = f"; did you mean {close[0]}?" if close else ""
    return ConfigError(f"{kind}: unknown key {key!r}{guess}", hint=f"the keys are {', '.join(known)}")


def finite_number(text: str, what: str) -> float:
    """The number that a piece of text holds.

    Raises:
        ConfigError: it is not a finite number; the message begins with `what`.
    """
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{what} is {text!r}, it must be a number") from None
    if not math.isfinite(value):
        raise ConfigError(f"{what} is {text!r}, it must be finite")
    return value


def latent_number(text: str, spec: str, example: str) -> int:
    """The latent id at the start of a command-line specification.

    Raises:
        ConfigError: it is not a whole number >= 0.
    """
    if not text.strip().isdecimal():
        raise ConfigError(f"{spec!r} does not begin with a latent number", hint=f"write it like {example}")
    return int(text)


def in_sd(value: float | str, what: str) -> float | None:
    """The number before `sd` in text such as `0.5sd`; None for a plain number.

    Raises:
        ConfigError: text that is neither, or a number that is negative or not finite.
    """
    if not isinstance(value, str):
        return None
    if not value.endswith("sd"):
        raise ConfigError(f"{what} is {value!r}, it must be a number or a number of SDs such as 0.5sd")
    return not_negative(finite_number(value.removesuffix("sd"), what), what)


def not_negative(value: float, what: str) -> float:
    """`value` itself.

    Raises:
        ConfigError: it is below 0.
    """
    if value < 0:
        raise ConfigError(f"{what} is {value:g}, it must be >= 0")
    return value


def number_if_number(value: Any) -> Any:
    """Turns text that is a plain number into that number, so that `alpha: "0.1"` in YAML means 0.1.

    Raises:
        ValueError: a number that is not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value.strip() if isinstance(value, str) else value
    if not math.isfinite(number):
        raise ValueError("it must be finite")
    return number


def check_latent(latent: int, kind: str) -> None:
    """Refuses a negative latent id.

    Raises:
        ConfigError: `latent` is below 0.
    """
    if latent < 0:
        raise ConfigError(f"{kind}: latent is {latent}, it must be >= 0")


def check_exists(latent: int, size: int) -> None:
    """Refuses a latent id that a reward model of `size` latents does not have.

    Raises:
        ConfigError: `latent` is outside 0..size-1.
    """
    if not size:
        from sarm_control.reward_model import no_latents

        error = no_latents(f"latent {latent} does not exist")
        raise ConfigError(str(error), hint=error.hint)
    if not 0 <= latent < size:
        raise ConfigError(
            f"latent {latent} does not exist: this reward model has {size} latents (0..{size - 1})"
        )
