"""`sarm config`: the configuration a run would have, and its schema."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.cli._run_flags import RunFlags

_NO_FLAGS = RunFlags()


def show(
    file: Annotated[
        Path | None, Parameter(help="YAML file of a run; not needed when flags say it all.")
    ] = None,
    /,
    *,
    flags: RunFlags = _NO_FLAGS,
) -> None:
    """Print the configuration a file and flags resolve to."""
    from sarm_control.ppo.yaml_config import dump_yaml

    sys.stdout.write(dump_yaml(flags.config(file).to_dict()))


def schema() -> None:
    """Print the JSON schema of the training configuration, for editors."""
    from sarm_control.ppo.config import RunConfig

    sys.stdout.write(json.dumps(RunConfig.model_json_schema(), indent=2) + "\n")
