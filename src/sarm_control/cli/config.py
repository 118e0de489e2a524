"""`sarm config`: the configuration a run would have, its schema, and how two of them differ."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.cli._help import INPUT
from sarm_control.cli._next import again, say_next
from sarm_control.cli._run_flags import RunFlags
from sarm_control.errors import ConfigError

_NO_FLAGS = RunFlags()


def show(
    file: Annotated[
        Path | None, Parameter(group=INPUT, help="YAML file of a run; not needed when flags say it all.")
    ] = None,
    /,
    *,
    flags: RunFlags = _NO_FLAGS,
) -> None:
    """Print the configuration a file and flags resolve to."""
    from sarm_control.training import dump_yaml

    sys.stdout.write(dump_yaml(flags.config(file).to_dict()))
    # the words after `config show`, which `train` takes as they are
    say_next("train", *again()[2:], "--dry-run")


def diff(
    before: Annotated[Path, Parameter(group=INPUT, help="YAML file of a run, or a run folder.")],
    now: Annotated[Path, Parameter(group=INPUT, help="YAML file of a run, or a run folder.")],
    /,
) -> None:
    """Print the settings in which two files or run folders differ, defaults filled in.

    One line each: the key, its value in the first, its value in the second.
    """
    from sarm_control.training import config_differences, load_config

    differences = config_differences(load_config(_file_of(before)), load_config(_file_of(now)))
    for line in differences or [f"{before} and {now} have the same settings"]:
        print(line)
    if before.is_dir() and now.is_dir():
        say_next("compare", before, now, "--prompts", "held_out.jsonl")
    else:
        say_next("train", _file_of(now), "--dry-run")


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    file = path / "config.yaml"
    if not file.is_file():
        raise ConfigError(
            f"{path} is not a run folder: it has no config.yaml", hint="name a YAML file or a run"
        )
    return file


def schema() -> None:
    """Print the JSON schema of the training configuration, for editors."""
    from sarm_control.training import RunConfig

    sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=2) + "\n")
    say_next("config", "show")
