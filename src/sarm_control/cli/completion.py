"""`sarm completion`: the Tab key knows commands, options and choices."""

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from sarm_control.cli._help import INPUT
from sarm_control.cli._next import say_next
from sarm_control.console import say

_WHERE = {
    "bash": 'put eval "$(sarm completion bash)" into ~/.bashrc',
    "zsh": "sarm completion zsh > DIR/_sarm, in a folder DIR of $fpath",
    "fish": "sarm completion fish > ~/.config/fish/completions/sarm.fish",
}


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(group=INPUT, help="The shell it is for.")], /
) -> None:
    """Print a script that completes commands and options in a shell.

    It knows every command, option and choice of this version; print it again after an upgrade.
    """
    from sarm_control.cli import build_app

    sys.stdout.write(build_app().meta.generate_completion(prog_name="sarm", shell=shell))
    # The script is read at every start of a shell: remarks are for people who look at it.
    if sys.stdout.isatty():
        say(_WHERE[shell])
        say_next("--help")
