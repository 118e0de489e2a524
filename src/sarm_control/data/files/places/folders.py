"""Folders of data files: which of the files hold rows, and in which order they are read as one."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sarm_control.data.files.forms import HEAD, compression_of, plain_suffix
from sarm_control.data.files.places.opening import opened
from sarm_control.data.lines import readable
from sarm_control.errors import DataError

_ROWS: Final = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet", ".arrow", ".feather")
# JSON that lies beside data and describes it
_ABOUT: Final = re.compile(
    r"(dataset_infos?|dataset_dict|state|config|generation_config|tokenizer|tokenizer_config|vocab"
    r"|special_tokens_map|added_tokens|metadata|package|croissant|.*\.index)\.json"
)
# as the hub names the files of a split: train-00000-of-00004
_SHARD: Final = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_SPLIT: Final = re.compile(r"(train|test|validation|valid|val|dev|eval)(?![a-z])")
_NUMBER: Final = re.compile(r"(\d+)")
_OURS: Final = ("manifest.json", ".progress")
_NAMED: Final = 3
_WANTS: Final = (
    "wants a folder of .jsonl, .json, .csv, .tsv, .parquet or .arrow files, or one of datasets' save_to_disk"
)


def is_saved_folder(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk` of a data set or of a dict of them."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def is_row_folder(path: Path) -> bool:
    """Whether a folder is read as rows of text: every folder that no command of ours wrote."""
    return path.is_dir() and (is_saved_folder(path) or not any((path / name).exists() for name in _OURS))


def shards_of(folder: Path, path: Path) -> list[str]:
    """The names of the files of a folder that are read as one, in the order of their names and numbers.

    Hidden files and those that only describe a data set are left out. Everything that would lose rows or
    read them twice is refused.

    Args:
        folder: where it lies.
        path: its name, for messages.

    Raises:
        DataError: no data file; files of two forms; files of two splits, or one of a split is missing; data
            files in folders below.
    """
    visible = sorted((one for one in folder.iterdir() if one.name[0] not in "._"), key=_by_number)
    names = [one.name for one in visible if one.is_file() and _holds_rows(one)]
    below = [one.name for one in visible if one.is_dir() and _any_below(one)]
    if not names:
        if len(below) == 1:
            raise DataError(f"{path}: the data files lie in a folder below", hint=f"give {path / below[0]}")
        raise DataError(f"{path}: the folder holds no data file{_found(visible)}", hint=_WANTS)
    if below:
        raise DataError(
            f"{path}: holds data files, and folders of them: {_some(below)}",
            hint="move the files of one data set into a folder of their own",
        )
    _check_splits(names, path)
    _check_forms(folder, names, path)
    return names


def others_in(folder: Path, names: Sequence[str]) -> list[str]:
    """What else lies visibly in a folder, and is not read."""
    left = (one.name for one in folder.iterdir() if one.name[0] not in "._" and one.name not in names)
    return sorted(left)


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    """`part-10` stands behind `part-9`."""
    parts = _NUMBER.split(path.name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]


def _holds_rows(path: Path) -> bool:
    return plain_suffix(path) in _ROWS and not _ABOUT.fullmatch(path.name)


def _any_below(folder: Path) -> bool:
    """Whether a data file lies in a folder or below it, outside hidden folders."""
    # all of it at once: a listing that is left half-read stays open
    for one in sorted(folder.iterdir()):
        if one.name[0] in "._":
            continue
        # links are not followed: they may lead back up
        if _any_below(one) if one.is_dir() and not one.is_symlink() else _holds_rows(one):
            return True
    return False


def _check_splits(names: Sequence[str], path: Path) -> None:
    """Files of one split; where they are numbered as those of the hub, all of its files."""
    words = {found[1]: name for name in names if (found := _SPLIT.match(name.lower()))}
    if len(words) > 1:
        raise DataError(
            f"{path}: holds files of the splits {', '.join(sorted(words))}",
            hint=f"give one file, such as {path / next(iter(words.values()))}, or move one split elsewhere",
        )
    shards = [_SHARD.match(name) for name in names]
    numbered = [(one["split"], int(one["number"]), int(one["count"])) for one in shards if one]
    if not numbered:
        return
    splits = sorted({split for split, _, _ in numbered})
    if len(splits) > 1:
        raise DataError(
            f"{path}: holds files of the splits {', '.join(splits)}",
            hint="move the files of one split into a folder of their own, or link them there",
        )
    have = {number for _, number, _ in numbered}
    missing = next((number for number in range(numbered[0][2]) if number not in have), None)
    if missing is not None:
        raise DataError(
            f"{path}: file {missing + 1} of {numbered[0][2]} is missing "
            f"({splits[0]}-{missing:05d}-of-{numbered[0][2]:05d})",
            hint="copy or download the folder again; a part of it has to be given file by file",
        )


def _check_forms(folder: Path, names: Sequence[str], path: Path) -> None:
    forms = dict[str, str]()
    for name in names:
        forms.setdefault(_form(folder / name, path / name), name)
    if len(forms) > 1:
        named = ", ".join(f"{name} ({form})" for form, name in forms.items())
        raise DataError(
            f"{path}: holds files of more than one form: {named}",
            hint="the same rows may be there twice: move the files of one form into a folder of their own",
        )


def _form(file: Path, path: Path) -> str:
    with readable(path), file.open("rb") as raw:
        packed = compression_of(raw.read(HEAD))
    with opened(file, path) as found:
        return found.form if packed is None else f"{found.form} in {packed}"


def _found(visible: Sequence[Path]) -> str:
    return f": it has {_some([one.name for one in visible])}" if visible else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
