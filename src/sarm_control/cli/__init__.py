"""The `sarm` command.

A command is a function in the module of its own name and is imported only when it is
the one asked for; its help is its docstring, read from the source, so `sarm --help` imports none.
"""

import functools
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from sarm_control import __version__
from sarm_control.cli._errors import run_safely
from sarm_control.cli._help import EVERY, HELP_ALL, HelpPage, asks_for_all

COMMANDS = (
    "demo",
    "score",
    "verify",
    "convert",
    "build",
    "attach",
    "latents",
    "discover",
    "audit",
    "label",
    "probe",
    "rerank",
    "eval",
    "plan",
    "train",
    "study",
    "compare",
    "report",
    "card",
    "push",
    "serve",
    "explore",
    "completion",
)
"""Each is the function of its own name in the module of its own name."""

GROUPS = {
    "data": ("Say what a data file is, or write its rows as plain ones.", ("check", "convert")),
    "doctor": ("Call what an engine will call, and say what is wrong.", ("reward",)),
    "config": ("Show or compare training configurations, or their schema.", ("show", "schema", "diff")),
    "lab": ("Make worlds with known shortcuts, in which every control can be put to the proof.", ("build",)),
}
"""Commands that have commands of their own: what they are for, and the functions of `cli/NAME.py`."""


@functools.cache
def help_of(module: str, function: str) -> str:
    """A command's docstring, read from the source: importing it would load what it needs.

    Raises:
        LookupError: the module has no such function, or it has no docstring.
    """
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    # a page of help wants those of all commands, and parsing their files takes longer than all the rest of it
    found = re.search(rf'^def {function}\(.*?:\n    """(.*?)"""', source, re.DOTALL | re.MULTILINE)
    if found is None:
        raise LookupError(f"cli/{module}.py has no function {function} with a docstring")
    return _flowing(inspect.cleandoc(found[1]))


def _flowing(docstring: str) -> str:
    """Paragraphs of one line each, to be wrapped to the terminal, without the quotes of code."""
    paragraphs = docstring.replace("`", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def build_app(*, help_all: bool = False) -> App:
    """The command tree; nothing heavy is imported until a command runs.

    Args:
        help_all: whether help describes rarely needed options too.
    """
    app = App(
        name="sarm",
        help="Read, test and control what a sparse-autoencoder reward model pays for.",
        help_epilogue=f"sarm COMMAND --help describes one command, {HELP_ALL} every option of it.",
        version=__version__,
        help_formatter=HelpPage(everything=help_all),
        # The default format is Markdown, whose renderer takes longer to import than a page to print.
        help_format="plaintext",
        # or cyclopts adds an option `--empty-NAME` for every list
        default_parameter=Parameter(negative_iterable=()),
        # Errors reach run_safely, which prints them in one form for every cause.
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        # cyclopts would print what a command returns and end the process: `main` has more to do, and
        # is called by tests and notebooks
        result_action="return_value",
    )
    for name in COMMANDS:
        app.command(f"sarm_control.cli.{name}:{name}", name=name, help=help_of(name, name))
    for group, (purpose, names) in GROUPS.items():
        inner = App(name=group, help=purpose)
        for name in names:
            inner.command(f"sarm_control.cli.{group}:{name}", name=name, help=help_of(group, name))
        app.command(inner)
    app.meta.default(_with_common_flags(app))
    # Swallowed here, an interrupt would end without the line that names the last checkpoint.
    app.meta.suppress_keyboard_interrupt = False
    return app


def _with_common_flags(app: App) -> Any:
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        quiet: Annotated[
            bool,
            Parameter(
                group=EVERY,
                name=["--quiet", "-q"],
                negative="",
                help="Say nothing but errors on stderr.",
            ),
        ] = False,
    ) -> Any:
        from sarm_control.cli._next import remember
        from sarm_control.console import set_quiet

        set_quiet(quiet)
        # a lone hyphen is standard input, not the beginning of an option
        words = ["./-" if token == "-" else _without_scheme(token) for token in tokens]
        remember(words)
        return app(words)

    return launch


def _without_scheme(token: str) -> str:
    """A word of the command line; the place that a `file://` URL names, alone or behind `--option=`."""
    option, equals, value = token.partition("=") if token.startswith("--") else ("", "", token)
    if not value.startswith("file://"):
        return token
    from sarm_control.embedded import local_path

    return f"{option}{equals}{local_path(value)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: the words after `sarm`; those of the process when None.

    Returns:
        0 done; 1 the command's own "no" (such as a failed `verify`); 2 something the
        user can put right; 3 a run that `--stop-on` stopped; 130 interrupted.
    """
    from sarm_control.locks import let_go

    words = list(sys.argv[1:] if arguments is None else arguments)
    everything = asks_for_all(words)
    app = build_app(help_all=everything)
    if everything:
        words = ["--help" if word == HELP_ALL else word for word in words]
    try:
        return run_safely(lambda: app.meta(words))
    finally:
        let_go()
