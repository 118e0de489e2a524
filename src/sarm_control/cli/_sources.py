"""What commands that need latents read: data files, which are scored, and latents folders, which are not.

The model is loaded when the first data file needs it; with folders alone it never is. Everything that rows
and the head decide is checked by `prepare`, before a model is loaded.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sarm_control.cli._row_flags import AS_THEY_ARE, RowFlags
from sarm_control.cli._scoring import Reading, check_has_latents, load_model, model_name, or_lab
from sarm_control.console import progress, say
from sarm_control.embedded import LAB, is_data_name
from sarm_control.errors import DataError, ModelError

if TYPE_CHECKING:
    from sarm_control.conversation import ChatTemplate
    from sarm_control.data import Kind, Row, RowCheck
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import RewardModel, Scored


@dataclass
class ModelFlags:
    """The model a command was asked to score with, and how; loaded on first use.

    Args:
        model: `--model` as typed; None when it was not.
        device: see `_scoring.Device`.
        dtype: see `_scoring.Dtype`.
        max_length: see `_scoring.MaxLength`.
        batch_tokens: see `_scoring.BatchTokens`.
        template_date: see `_scoring.TemplateDate`.
        missing: what else the embedded world stands in for, for its remark.
        keep_states: whether the trunk's states come with the scores; of a latents folder, if it has them.
        reading: see `_scoring.Reading`.
        needs_latents: what a command cannot do without latents, as the beginning of a sentence; None where
            it can do without.
    """

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    template_date: str | None = None
    missing: tuple[str, ...] = ()
    keep_states: bool = False
    reading: Reading | None = None
    needs_latents: str | None = None
    _loaded: "RewardModel | None" = field(default=None, init=False, repr=False)
    _template: "ChatTemplate | None" = field(default=None, init=False, repr=False)
    _check: "RowCheck | None" = field(default=None, init=False, repr=False)

    def load(self) -> "RewardModel":
        """The reward model; `lab`, with a remark, when none was named."""
        from sarm_control.reward_model import no_latents

        if self._loaded is None:
            name = or_lab(self.model, *self.missing)
            self._loaded = load_model(
                name,
                device=self.device,
                dtype=self.dtype,
                max_length=self.max_length,
                template_date=self.template_date,
                reading=self.reading,
            )
            # asked again of what was loaded: `prepare` asks the files, and not every caller comes by it
            if self.needs_latents is not None and self._loaded.dictionary is None:
                raise no_latents(self.needs_latents)
        return self._loaded

    def check_row(self, row: "Row") -> None:
        """Raises `Reason` for a row that the chat template refuses; no weights are read."""
        from sarm_control.latents import template_check

        # when the first row is there: what is wrong with the file is told without a model
        if self._check is None:
            self._check = template_check(self.template())
        self._check(row)

    def template(self) -> "ChatTemplate":
        """The chat template, read once; no weights are read."""
        from sarm_control.reward_model import read_template

        if self._template is None:
            self._template = read_template(
                self.model or LAB,
                max_length=self.max_length,
                template_date=self.template_date,
                pooling=None if self.reading is None else self.reading.pooling,
            )
        return self._template

    def check_to_score(self, rows: "Sequence[Row]") -> None:
        """Refuses a model that is loaded later by all that its files say, as loading and scoring would.

        Raises:
            ModelError: see `check_checkpoint` and `check_tokens`.
        """
        from sarm_control.latents import check_tokens
        from sarm_control.reward_model import check_checkpoint

        check_tokens(rows, self.template(), check_checkpoint(self.model or LAB))

    @property
    def loaded(self) -> "RewardModel | None":
        """The reward model if something had to be scored."""
        return self._loaded

    @property
    def context(self) -> int | None:
        """Tokens a conversation could have; None when nothing was scored, or without a limit."""
        return None if self._loaded is None else self._loaded.template.max_length

    @property
    def dated(self) -> dict[str, str]:
        """`template_date` for manifests; empty when nothing was scored, or no date is written."""
        day = None if self._loaded is None else self._loaded.template.date
        return {} if day is None else {"template_date": day.isoformat()}

    @property
    def name(self) -> str:
        """What outputs call the model that data files are scored with."""
        return model_name(self.model or "lab")


class Source(NamedTuple):
    """Scored rows, and what outputs call the model that scored them."""

    scored_rows: "ScoredRows"
    model: str


CheckHead = Callable[[int, str], object]
"""Called with L and the fingerprint of the head; raises when what was asked for does not go with them."""


@dataclass(frozen=True)
class Prepared:
    """Rows that were read and checked, not yet scored."""

    read: "list[list[_Read]]"
    flags: ModelFlags
    beside: "list[_Read]" = field(default_factory=list)

    @property
    def rows(self) -> "list[list[Row]]":
        """Those of each set of paths."""
        return [[row for one in paths for row in one.rows] for paths in self.read]

    @property
    def scored(self) -> "list[ScoredRows]":
        """What latents folders hold."""
        from sarm_control.latents import ScoredRows

        return [
            ScoredRows(one.rows, one.scored) for paths in self.read for one in paths if one.scored is not None
        ]

    def score(self) -> list[Source]:
        """Scores what is not scored yet, in one pass; a source for each set of paths, `beside` the last."""
        sets = [*self.read, *([self.beside] if self.beside else [])]
        # in one pass over all files, so that answers of like length share a
        # batch whichever file they are from
        _score([one for paths in sets for one in paths], self.flags)
        return [_joined(paths, self.flags) for paths in sets]


def read_scored(
    paths: Sequence[Path],
    flags: ModelFlags,
    *,
    want: "Collection[Kind]",
    latents: Sequence[int] | None = None,
    skip_bad_rows: Path | None = None,
    check: "Callable[[Sequence[Row]], None]" = lambda _: None,
    check_head: CheckHead = lambda _size, _fingerprint: None,
    row_flags: RowFlags = AS_THEY_ARE,
) -> Source:
    """Rows and scores of data files and latents folders, in the order given.

    Args:
        paths: data files, names such as `lab:audit`, `-` or `hf:owner/name`, and latents folders.
        flags: the model that files are scored with; folders need none.
        want: the kinds of row the command can use.
        latents: those it needs, when it does not need all of them; None needs all.
        skip_bad_rows: a folder for the rows of each file that cannot be used.
        check: see `prepare`.
        check_head: see `prepare`.
        row_flags: how rows of files are read.

    Raises:
        DataError: a file, row or folder that cannot be used.
        ModelError: two of them were scored by different heads, or by another than `--model` has.
        ConfigError: a folder does not hold the latents that are needed.
    """
    (found,) = prepare(
        [paths],
        flags,
        want=want,
        latents=latents,
        aside=_folder(skip_bad_rows),
        check=check,
        check_head=check_head,
        row_flags=row_flags,
    ).score()
    warn([found])
    return found


def prepare(
    parts: Sequence[Sequence[Path]],
    flags: ModelFlags,
    *,
    want: "Collection[Kind]",
    latents: Sequence[int] | None = None,
    aside: Callable[[Path], Path | None] = lambda _: None,
    check: "Callable[[Sequence[Row]], None]" = lambda _: None,
    check_head: CheckHead = lambda _size, _fingerprint: None,
    keep: "Callable[[Sequence[Row]], Sequence[bool]] | None" = None,
    beside: Path | None = None,
    row_flags: RowFlags = AS_THEY_ARE,
    named: bool = False,
) -> Prepared:
    """Reads several sets of paths and checks all that needs no forward pass.

    Args:
        parts: the paths of each set.
        flags: see `read_scored`.
        want: see `read_scored`.
        latents: see `read_scored`.
        aside: where the rows of a file that cannot be used go; None stops at the first of them.
        check: called with all rows before the model is loaded; raises when they cannot be used.
        check_head: called before the model is loaded, with what its files say of its head.
        keep: called with the rows of the first set before `check`: which of them to go on with.
        beside: pairs of another purpose, scored by the same head, that `check` does not see; they come last.
        named: whether the model itself is needed, also where folders alone are read.
        row_flags: see `read_scored`.
    """
    read = [
        [_read(path, flags, want, latents, aside, row_flags, states=flags.keep_states) for path in paths]
        for paths in parts
    ]
    # before everything is checked: what is left out need not be of the benchmark's form
    if keep is not None:
        _keep(read[0], keep([row for one in read[0] for row in one.rows]))
    rows = [row for paths in read for one in paths for row in one.rows]
    # `--rows` is for a quick look at large data; pairs for another purpose are few, and are meant whole
    of_all_rows = replace(row_flags, first_rows=None)
    other = (
        [] if beside is None else [_read(beside, flags, {"pair"}, latents, aside, of_all_rows, states=False)]
    )
    everything = [*(one for paths in read for one in paths), *other]
    # heads before rows: whoever named the wrong model should not first mend rows
    check_head(*_check_heads(everything, flags, named=named))
    check(rows)
    for one in everything:
        # where bad rows are set aside, those that the template refuses were found while reading
        if one.scored is None and aside(one.path) is None:
            _check_template(one.rows, flags)
    say_respelled(rows)
    return Prepared(read, flags, other)


def say_respelled(rows: "Sequence[Row]") -> None:
    """Says which prompts count as one although they are not written alike."""
    from sarm_control.data import count_respelled

    count = count_respelled(rows)
    if count:
        say(
            f"{count} of {len(rows)} rows have the prompt of another row in other case or white space; "
            "they count as one prompt"
        )


def warn(sources: Sequence[Source]) -> None:
    """Says how many answers are empty and how many were cut to fit the context."""
    warn_of_empty([row for source in sources for row in source.scored_rows.rows])
    cut = sum(int((source.scored_rows.scored.truncated > 0).sum()) for source in sources)
    if cut:
        say(f"warning: {cut} answers were cut from the left to fit the context")


def warn_of_empty(rows: "Sequence[Row]") -> None:
    """Says how many answers are empty; those of the embedded world are meant to be.

    Its language has empty answers, so that a reward model has seen what an answer without a word is worth.
    """
    from sarm_control.data import count_empty_answers

    empty = count_empty_answers([row for row in rows if not is_data_name(row.path)])
    if empty:
        say(f"warning: {empty} answers are empty strings; they were scored as they are")


@dataclass
class _Read:
    """What one path holds; `scored` is filled in for a data file."""

    path: Path
    rows: "Sequence[Row]"
    scored: "Scored | None" = None
    model: str | None = None


def _folder(skip_bad_rows: Path | None) -> Callable[[Path], Path | None]:
    return lambda path: None if skip_bad_rows is None else skip_bad_rows / f"{path.stem}.bad.jsonl"


def _read(
    path: Path,
    flags: ModelFlags,
    want: "Collection[Kind]",
    latents: Sequence[int] | None,
    aside: Callable[[Path], Path | None],
    row_flags: RowFlags,
    *,
    states: bool,
) -> _Read:
    from sarm_control.data import is_row_folder, read_rows

    if not path.is_dir() or is_row_folder(path):
        bad = aside(path)
        rows = read_rows(
            path,
            want=want,
            skip_bad_rows=bad,
            options=row_flags.options,
            limit=row_flags.first_rows,
            # without a place for bad rows, a missing file or model is told before a row of another one
            check=None if bad is None else flags.check_row,
        )
        return _Read(path, rows)
    from sarm_control.latents import LatentsFolder

    folder = LatentsFolder(path)
    found = folder.read(latents=latents, states=states)
    # a folder is scored already and has no other side to be read as, unlike a row of a file
    other = next((row for row in found.rows if row.kind not in want), None)
    if other is not None:
        raise DataError(
            f"{path}: {other.where} has kind {other.kind}, this wants {' or '.join(sorted(want))}",
            hint="make the folder from rows of that kind",
        )
    return _Read(path, found.rows, found.scored, folder.manifest.model)


def _check_template(rows: "Sequence[Row]", flags: ModelFlags) -> None:
    from sarm_control.data import Reason

    for row in rows:
        try:
            flags.check_row(row)
        except Reason as problem:
            raise DataError(f"{row.where}: {problem}", hint=problem.hint) from problem


def _keep(read: Sequence[_Read], kept: Sequence[bool]) -> None:
    """Leaves the other rows out, and their scores where there are some already."""
    import numpy as np

    # one for each row of all files, in their order
    flags = iter(kept)
    for one in read:
        rows = [(row, next(flags)) for row in one.rows]
        one.rows = [row for row, wanted in rows if wanted]
        if one.scored is not None:
            answers = np.repeat([wanted for _, wanted in rows], [len(row.answers) for row, _ in rows])
            one.scored = one.scored.take(np.flatnonzero(answers))


def _score(read: Sequence[_Read], flags: ModelFlags) -> None:
    """One pass over the answers of all data files."""
    import numpy as np

    from sarm_control.latents import score_rows

    files = [one for one in read if one.scored is None]
    if not files:
        return
    rows = [row for one in files for row in one.rows]
    scored = score_rows(
        flags.load(),
        rows,
        batch_tokens=flags.batch_tokens,
        keep_states=flags.keep_states,
        progress=progress,
    )
    # the scores come in one piece; each file gets back its own part
    start = 0
    for one in files:
        stop = start + sum(len(row.answers) for row in one.rows)
        one.scored, one.model = scored.take(np.arange(start, stop)), flags.name
        start = stop


class _Head(NamedTuple):
    size: int
    fingerprint: str
    model: str | None


def _check_heads(read: Sequence[_Read], flags: ModelFlags, *, named: bool) -> tuple[int, str]:
    """Latent numbers mean nothing under another head, or another model with an equal head.

    Returns:
        L and the fingerprint of the one head there is.
    """
    found = {str(one.path): _head_of(one.scored) for one in read if one.scored is not None}
    # a model that was named is checked also where nothing has to be scored: a wrong name is a mistake
    if named or flags.model is not None or any(one.scored is None for one in read):
        model = flags.model or LAB
        found = {f"--model {model}": _named_head(model, flags), **found}
    hint = "make latents folders with the model of this command"
    if named and flags.model is None:
        hint = "without a name the model is the lab's SARM: name it with --model"
    # the named model first: in the message it is what the others are held against
    (first, head), *others = found.items()
    for path, other in others:
        if other.fingerprint != head.fingerprint:
            raise ModelError(
                f"{path} was scored with the head {other.fingerprint}, {first} has the head "
                f"{head.fingerprint}; their latents have other meanings",
                hint=hint,
            )
        # latents made by an earlier version do not know their model
        if None not in (head.model, other.model) and head.model != other.model:
            raise ModelError(
                f"{path} was scored with the model {other.model}, {first} is of {head.model}: "
                "the heads are equal, trunk or autoencoder are not",
                hint=hint,
            )
    return head.size, head.fingerprint


def _head_of(scored: "Scored") -> _Head:
    return _Head(scored.latents.size, scored.fingerprint, scored.model_fingerprint)


def _named_head(model: str, flags: ModelFlags) -> _Head:
    """A model's head by its files; nothing else of it is loaded."""
    from sarm_control.reward_model import read_head, read_model_fingerprint

    if flags.needs_latents is not None:
        check_has_latents(model, flags.needs_latents)
    how = flags.reading or Reading()
    head = read_head(model, output=how.output)
    return _Head(len(head.weight), head.fingerprint, read_model_fingerprint(model, pooling=how.pooling))


def _joined(read: Sequence[_Read], flags: ModelFlags) -> Source:
    from sarm_control.latents import ScoredRows
    from sarm_control.reward_model import Scored

    scored = [one.scored for one in read if one.scored is not None]
    rows = [row for one in read for row in one.rows]
    name = next((one.model for one in read if one.model is not None), flags.name)
    return Source(ScoredRows(rows, Scored.concatenate(scored)), name)
