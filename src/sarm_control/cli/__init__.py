"""The `sarm` command.

A command is a function in the module of its own name and is imported only when it is
the one asked for; help for all of them is written here, so `sarm --help` imports none.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, Parameter

from sarm_control import __version__
from sarm_control.cli._errors import run_safely

COMMANDS = {
    "score": "Score answers: rewards, contributions, rewards under edits.",
    "verify": "Check a reward model against recorded rewards.",
    "convert": "Make a safetensors checkpoint from pickled weights.",
    "build": "Build a SARM from any causal language model.",
    "discover": "Find the latents that promote or harm what your pairs prefer.",
    "train": "Train a policy by PPO with the controls in its reward.",
    "compare": "Compare a trained policy with its base, latent by latent.",
}
"""Command name to the one line shown by `sarm --help`."""

CONFIG_COMMANDS = {
    "show": "Print the full configuration a YAML file and flags resolve to.",
    "schema": "Print the JSON schema of the training configuration, for editors.",
}
"""The commands under `sarm config`."""


def build_app() -> App:
    """The command tree; nothing heavy is imported until a command runs."""
    app = App(
        name="sarm",
        help="Read, test and control what a sparse-autoencoder reward model pays for.",
        help_epilogue="sarm COMMAND --help describes one command.",
        version=__version__,
        help_formatter="plain",
        default_parameter=Parameter(negative_iterable=()),
        # Errors reach run_safely, which prints them in one form for every cause.
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for name, text in COMMANDS.items():
        app.command(f"sarm_control.cli.{name}:{name}", name=name, help=text)
    config = App(name="config", help="Show the training configuration or its schema.")
    for name, text in CONFIG_COMMANDS.items():
        config.command(f"sarm_control.cli.config:{name}", name=name, help=text)
    app.command(config)
    app.meta.default(_with_common_flags(app))
    # Swallowed here, an interrupt would end without the line that names the last checkpoint.
    app.meta.suppress_keyboard_interrupt = False
    return app


def _with_common_flags(app: App) -> Any:
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        quiet: Annotated[
            bool, Parameter(name=["--quiet", "-q"], negative="", help="Say nothing but errors on stderr.")
        ] = False,
    ) -> Any:
        from sarm_control.console import set_quiet

        set_quiet(quiet)
        return app(tokens)

    return launch


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        arguments: the words after `sarm`; those of the process when None.

    Returns:
        0 done; 1 the command's own "no" (such as a failed `verify`); 2 something the
        user can put right; 130 interrupted.
    """
    app = build_app()
    return run_safely(lambda: app.meta(arguments))
