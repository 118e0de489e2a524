"""`sarm lab`: worlds with planted shortcuts."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from sarm_control.cli._help import COMPUTE, OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import Overwrite, hold_output
from sarm_control.console import progress, say


def build(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT, name=["--out", "-o"], help="Folder for the world.")],
    seed: Annotated[
        int,
        Parameter(
            group=COMPUTE, validator=validators.Number(gte=0), help="Of words, wiring, data and training."
        ),
    ] = 0,
    attached: Annotated[
        bool,
        Parameter(
            group=COMPUTE,
            negative="",
            help="Also a sequence classifier of the same preferences, with a dictionary attached.",
        ),
    ] = False,
    json_file: Annotated[
        Path | None, Parameter(group=OUTPUT, name="--json", help="The figures as JSON.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a world with planted shortcuts: policy, SARM, data and gold reward.

    The SARM is trained on preferences of annotators who like flattery and boilerplate closings; a
    program knows what every answer is really worth. The build measures whether each shortcut has a
    latent of its own, and fails when one has not. The same seed makes the same world. With --attached it
    gets a second reward model, for sarm demo --attached: one of the kind that most people train.
    """
    from sarm_control.files import write_json
    from sarm_control.lab import AttachedConfig, WorldConfig, build_world

    for path in (out, json_file):
        hold_output(path, overwrite=overwrite)
    figures = build_world(
        out,
        WorldConfig(seed=seed),
        attached=AttachedConfig() if attached else None,
        overwrite=overwrite,
        progress=progress,
        say=say,
    )
    if json_file is not None:
        write_json(json_file, figures)
    say(f"{out}: the world of seed {seed}; {len(figures['harming_latents'])} latents harm")
    say_next(
        "demo", "--lab", out, *(["--attached"] if attached else []), "-o", out.with_name(f"{out.name}-demo")
    )
