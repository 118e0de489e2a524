"""`sarm card`: the hub's README.md for a run or a reward model."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from sarm_control.cli._help import INPUT, OUTPUT
from sarm_control.cli._next import say_next
from sarm_control.cli._outputs import Overwrite, check_outputs
from sarm_control.embedded import LAB
from sarm_control.errors import ConfigError

Comparison = Annotated[
    Path | None,
    Parameter(group=INPUT, help="Folder of sarm compare. Default: the one in the run, if there is one."),
]
Discovery = Annotated[
    Path | None, Parameter(group=INPUT, help="Folder of sarm discover: the latents it called.")
]
Benchmark = Annotated[Path | None, Parameter(group=INPUT, help="Folder of sarm eval -o: the figures.")]
License = Annotated[
    str | None,
    Parameter(
        name="--license",
        group=OUTPUT,
        help="The hub's identifier, such as apache-2.0. Default: none is claimed.",
    ),
]


def card(
    source: Annotated[str, Parameter(group=INPUT, help="Run folder, or folder of a reward model.")],
    /,
    *,
    comparison: Comparison = None,
    discovery: Discovery = None,
    evaluation: Benchmark = None,
    title: Annotated[str | None, Parameter(group=OUTPUT, help="Title. Default: the folder's name.")] = None,
    license_id: License = None,
    out: Annotated[
        Path | None,
        Parameter(group=OUTPUT, name=["--out", "-o"], help="The file. Default: README.md in the folder."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model card, the hub's README.md, for a run or a reward model.

    It has data, controls, evidence, figures and commands. Every figure is read from files; what was not
    measured is said to be so. Nothing is uploaded.
    """
    from sarm_control.files import write_text
    from sarm_control.publishing import CARD, card_of, contents_of, read_evidence

    contents = contents_of(source)
    if out is None and source == LAB:
        raise ConfigError("the lab lies inside the package", hint="sarm card lab -o README.md")
    place = out or contents.folder / CARD
    check_outputs((place,), (), overwrite=overwrite)
    evidence = read_evidence(contents, comparison=comparison, discovery=discovery, evaluation=evaluation)
    write_text(place, card_of(contents, evidence, name=title, license=license_id))
    print(place)
    say_next("push", source, "OWNER/NAME", "--dry-run")
