"""Errors that a user can cause.

Each is a `SarmError`: the command line prints its message and hint without a traceback and exits with code 2.
Each also inherits a standard type, so that callers of the library can catch `ValueError` and the like as
usual.
"""

LONGEST_MESSAGE = 4000
"""The most characters of a message or hint: one that quotes a damaged file could be as long as the file."""


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
