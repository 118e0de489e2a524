"""Errors a user can cause.

Every one is a `SarmError`: the command line prints its message and hint without
a traceback and exits with code 2. Each also inherits the standard type, so that
library callers can catch `ValueError` and friends as they would elsewhere.
"""

LONGEST_MESSAGE = 4000
"""Characters of a message or hint; what quotes a damaged file may be as long as the file."""


class SarmError(Exception):
    """Base of all errors meant for users.

    Args:
        message: one line that says what is wrong, naming the file, line or key.
        hint: the next thing to type or to look at, one line.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_bounded(message))
        self.hint = None if hint is None else _bounded(hint)


def _bounded(text: str) -> str:
    more = len(text) - LONGEST_MESSAGE
    return text if more <= 0 else f"{text[:LONGEST_MESSAGE]} ... ({more} more characters)"


class ConfigError(SarmError, ValueError):
    """A setting, flag, edit or penalty that cannot be used."""


class DataError(SarmError, ValueError):
    """A data file or row that cannot be used; the message starts with `file:line`."""


class ModelError(SarmError, ValueError):
    """A checkpoint, tokenizer or head that cannot be used."""


class OutputError(SarmError, OSError):
    """An output that exists already or cannot be written."""


class MissingExtraError(SarmError, ImportError):
    """A feature whose optional packages are not installed."""


class TrainingError(SarmError, RuntimeError):
    """A run that had to stop: a NaN reward, a checkpoint that does not verify."""
