"""Edits on the command line: spelled out, from files, or for the latents of a discovery."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from cyclopts import Parameter

from sarm_control.cli._help import COMPUTE
from sarm_control.console import say
from sarm_control.errors import ConfigError

if TYPE_CHECKING:
    from sarm_control.control import Edit, EditFile

EditSpecs = Annotated[
    list[str] | None,
    Parameter(
        group=COMPUTE,
        name="--edit",
        help="Edit of a latent, may be repeated: 12345=0, 12345:max=2, 12345:*0.5. "
        "For latents of a discovery: @features.json#harms[:3]=0.",
    ),
]
EditsFile = Annotated[
    Path | None,
    Parameter(
        group=COMPUTE, help="File of edits: as --save-edits or discover --write-controls wrote it, or SARM's."
    ),
]

_NO_EDIT = 'no edit was given; try --edit "9:max=2" or --edits-file edits.json'


class GivenEdits(NamedTuple):
    """Edits as typed; `on` makes them edits of one reward model.

    Args:
        specs: those that need no other file, parsed.
        listed: those for latents of a features file, as typed.
        file: the file of edits.
        content: what it holds.
    """

    specs: "list[Edit]"
    listed: list[str]
    file: Path | None
    content: "EditFile | None"

    @property
    def inputs(self) -> list[Path]:
        """The files they were read from."""
        features = [Path(text.removeprefix("@").partition("#")[0]) for text in self.listed]
        return [*([self.file] if self.file else []), *dict.fromkeys(features)]

    @property
    def latents(self) -> list[int] | None:
        """Those that are edited; None while that depends on a features file."""
        in_file = [] if self.content is None else self.content.edits
        return None if self.listed else [edit.latent for edit in [*in_file, *self.specs]]

    def on(self, size: int, fingerprint: str) -> "list[Edit]":
        """The edits for a head of `size` latents.

        Raises:
            ConfigError: a latent the model does not have, or two edits of one latent.
            ModelError: the file of edits was made for another head.
            DataError: the features were.
        """
        from sarm_control.control import check_exists, check_head, check_one_edit_each
        from sarm_control.training import edits_of_list

        edits = list(self.specs)
        if self.file is not None and self.content is not None:
            check_head(self.file, self.content.head, fingerprint)
            edits = [*self.content.edits, *edits]
        for text in self.listed:
            edits += edits_of_list(text, fingerprint).edits
        for edit in edits:
            check_exists(edit.latent, size)
        check_one_edit_each(edits)
        return edits


def read_edits(specs: Sequence[str] | None, file: Path | None, *, required: bool = False) -> GivenEdits:
    """Reads what was typed as far as that is possible without the model, so that mistakes come early.

    Raises:
        ConfigError: something is not an edit, or `required` and there is none.
    """
    from sarm_control.control import parse_edit, read_edit_file

    given = specs or []
    # those of a features file wait for the head: its numbers are refused under another one
    listed = [text for text in given if "#" in text]
    parsed = [parse_edit(text) for text in given if "#" not in text]
    content = None if file is None else read_edit_file(file)
    if content is not None and content.left_out:
        say(f"{file}: its edits are used; {' and '.join(content.left_out)} act in training alone")
    if required and not (parsed or listed or (content is not None and content.edits)):
        raise ConfigError(_NO_EDIT.partition("; ")[0], hint=_NO_EDIT.partition("; ")[2])
    return GivenEdits(parsed, listed, file, content)
