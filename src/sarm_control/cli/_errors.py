"""One form for every error a user can cause: `error: what`, then `  hint: what to type`."""

import contextlib
import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cyclopts import (
    App,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from sarm_control.cli._help import HELP_ALL
from sarm_control.errors import SarmError

EXIT_USER_ERROR = 2
# as shells say it: 128 plus the number of the signal, SIGINT and SIGPIPE
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

# no room, over quota, too large a file, a broken disk: standard output may be a file
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_COMMON_OPTIONS = ("--help", HELP_ALL, "--version", "--quiet")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "yes or no"}


class Explained(NamedTuple):
    """An error as the user reads it."""

    message: str
    hint: str | None


def run_safely(command: Callable[[], Any]) -> int:
    """Runs `command`; prints errors a user can cause and returns the exit code.

    An integer the command returns is its exit code. Anything unexpected is raised as it
    is, with its traceback: it is a bug and the traceback is what a report needs.
    """
    try:
        result = command()
        # here, where a full disk or a closed pipe is still a message; at exit it would be a traceback
        sys.stdout.flush()
    except CycloptsError as error:
        return _report(explain_usage(error))
    except SarmError as error:
        return _report(Explained(str(error), error.hint))
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"{interrupt if interrupt.args else 'interrupted'}\n")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        # an error of a library that only inherits from OSError, and so none that a user can read
        if error.errno is None:
            raise
        if error.filename is None and error.errno in _NOT_WRITTEN:
            with contextlib.suppress(ValueError, OSError):  # a caller may have put another stream there
                _discard_stdout()
        return _report(_explain_os_error(error))
    return result if isinstance(result, int) else 0


def explain_usage(error: CycloptsError) -> Explained:
    """What is wrong with the words typed, and what to type instead."""
    # a converter or validator of ours refused the value, and cyclopts wrapped its error
    if isinstance(error.__cause__, SarmError):
        return Explained(f"{_named(error)}{error.__cause__}", error.__cause__.hint or _help_hint(error))
    if isinstance(error, UnknownCommandError):
        return _unknown_command(error)
    return Explained(_usage_message(error), _help_hint(error))


def _usage_message(error: CycloptsError) -> str:
    if isinstance(error, UnknownOptionError):
        return _unknown(
            "option", error.token.keyword or error.token.value, _option_names(error.argument_collection)
        )
    if isinstance(error, MissingArgumentError):
        return _missing(error)
    if isinstance(error, ValidationError) and error.argument is not None:
        reason = error.exception_message.rstrip(".")
        return f"{_named(error)}{reason[:1].lower()}{reason[1:]}, not {_typed(error)}"
    if isinstance(error, CoercionError) and error.token is not None and error.msg is None:
        return _not_of_kind(error)
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given twice"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected {error.unused_tokens[0]}"
    return " ".join(str(error).split())


def _unknown_command(error: UnknownCommandError) -> Explained:
    typed = (error.unused_tokens or ["?"])[0]
    if typed.startswith("-"):
        return Explained(_unknown("option", typed, _COMMON_OPTIONS), _help_hint(error))
    names = _command_names(error.app)
    hint = f"the commands are {', '.join(names)}" if names else None
    return Explained(_unknown("command", typed, names), hint)


def _unknown(what: str, typed: str, known: Iterable[str]) -> str:
    # `--option=value` is one word of the command line
    typed = typed.split("=", 1)[0]
    near = difflib.get_close_matches(typed, list(known), n=1, cutoff=0.6)
    return f"unknown {what} {typed}" + (f"; did you mean {near[0]}?" if near else "")


def _missing(error: MissingArgumentError) -> str:
    name = error.keyword or _name_of(error)
    # the option was typed, with nothing behind it
    if name in (error.root_input_tokens or []):
        return f"{name} needs a value"
    # A mistyped option is the likelier mistake: it leaves the right one missing.
    unused = [token for token in error.unused_tokens or [] if token.startswith("--") and token != "--"]
    if unused and error.app is not None:
        return _unknown("option", unused[0], _option_names(error.app.assemble_argument_collection()))
    return f"{name} is required"


def _not_of_kind(error: CoercionError) -> str:
    kind = _KINDS.get(getattr(error.target_type, "__name__", ""))
    if kind is None:
        return " ".join(str(error).split()).rstrip(".")
    value = error.token.value if error.token else ""
    return f'{_named(error)}needs {kind}, not "{value}"'


def _named(error: CycloptsError) -> str:
    name = _name_of(error)
    return f"{name}: " if name else ""


def _name_of(error: CycloptsError) -> str:
    if error.argument is None:
        return ""
    typed = [token.keyword for token in error.argument.tokens if token.keyword]
    if typed:
        return typed[0]
    name = error.argument.name
    return name.lstrip("-").upper() if error.argument.field_info.is_positional else name


def _typed(error: CycloptsError) -> str:
    return " ".join(token.value for token in error.argument.tokens) if error.argument else ""


def _help_hint(error: CycloptsError) -> str:
    return f"{' '.join(('sarm', *(error.command_chain or ())))} --help lists the options"


def _option_names(arguments: ArgumentCollection) -> list[str]:
    return [*_COMMON_OPTIONS, *(name for argument in arguments for name in argument.names)]


def _command_names(app: App | None) -> list[str]:
    # an app lists --help and --version among its commands
    return [name for name in app or () if not name.startswith("-")]


def _explain_os_error(error: OSError) -> Explained:
    reason = (error.strerror or str(error)).lower()
    if error.filename is None:
        # every file that we write is named where it is written: what has no name is what is printed
        where = "cannot write to standard output: " if error.errno in _NOT_WRITTEN else ""
        return Explained(f"{where}{reason}", None)
    hint = "check the spelling of the path" if isinstance(error, FileNotFoundError) else None
    return Explained(f"{error.filename}: {reason}", hint)


def _report(explained: Explained) -> int:
    lines = [f"error: {explained.message}"]
    if explained.hint:
        lines.append(f"  hint: {explained.hint}")
    sys.stderr.write("\n".join(lines) + "\n")
    return EXIT_USER_ERROR


def _discard_stdout() -> None:
    # The interpreter flushes stdout once more at exit, which would fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
