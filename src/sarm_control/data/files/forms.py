"""What form a data file has, told by its first bytes; its name only decides what these leave open."""

import csv
import re
from collections.abc import Collection
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sarm_control.data.lines import UTF8_BOM
from sarm_control.errors import DataError

Compression = Literal["gzip", "zstd"]
Name = Literal["JSON Lines", "JSON array", "CSV", "TSV", "Parquet", "Arrow file", "Arrow stream"]

HEAD: Final = 64 << 10
"""How many bytes tell a form."""

TEXT_COLUMNS: Final = frozenset(
    {
        *(
            "prompt",
            "question",
            "instruction",
            "input",
            "query",
            "context",
            "system",
            "system_prompt",
            "text",
        ),
        *("response", "answer", "output", "completion", "chosen", "rejected", "response1", "response2"),
        *("response_a", "response_b", "content"),
    }
)
"""Columns of a CSV file that are text whatever is in them."""
LIST_COLUMNS: Final = frozenset(
    {
        *("messages", "conversations", "conversation", "candidates", "prompt", "chosen", "rejected"),
        *("completion", "responses", "completions", "context", "history"),
    }
)
"""Columns of a CSV file that hold lists where all of its first cells are written as JSON lists."""

_COMPRESSED: tuple[tuple[bytes, Compression], ...] = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_COMPRESSED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
_TABLES = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow"}
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".joblib")
_AGAIN = "make the human buffer anew: sarm latents demonstrations.jsonl --as-human -o human.safetensors"
_PLAIN_NAME = re.compile(r"[\w .\-/()]*")


class Form(NamedTuple):
    """A form, and what it is packed in."""

    name: Name
    compression: Compression | None = None


class _Refused(NamedTuple):
    start: bytes
    what: str
    hint: str


_REFUSED = (
    # before other pickles, whose first bytes it has too
    _Refused(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a pickle of torch", _AGAIN),
    *(_Refused(bytes([0x80, version]), "a Python pickle", _AGAIN) for version in (2, 3, 4, 5)),
    _Refused(b"\x93NUMPY", "a NumPy array", "give the rows of text"),
    _Refused(b"\xfd7zXZ\x00", "compressed by xz", "unpack it: xz -d FILE"),
    _Refused(b"BZh", "compressed by bzip2", "unpack it: bzip2 -d FILE"),
    _Refused(b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    _Refused(b"PARE", "an encrypted Parquet file", "write it without encryption"),
    _Refused(b"SQLite format 3\x00", "an SQLite data base", "export the table as CSV"),
    _Refused(b"\x89HDF", "an HDF5 file", "write the rows as Parquet or JSON Lines"),
    _Refused(b"Obj\x01", "an Avro file", "write the rows as Parquet or JSON Lines"),
    _Refused(b"ORC", "an ORC file", "write the rows as Parquet or JSON Lines"),
    _Refused(b"%PDF", "a PDF", "give the rows of text"),
)


def compression_of(head: bytes) -> Compression | None:
    """What a file is compressed by, told by its first bytes."""
    return next((name for start, name in _COMPRESSED if head.startswith(start)), None)


def form_of(head: bytes, path: Path, names: Collection[str] = ()) -> Name:
    """The form of a file.

    Args:
        head: its first `HEAD` bytes, decompressed.
        path: its name, for messages and for what the bytes leave open.
        names: of columns that a header may have, beside those that are always known.

    Raises:
        DataError: a form that is not read, such as a pickle, with what it is and what to do.
    """
    if head.startswith(b"PAR1"):
        return "Parquet"
    if head.startswith(b"ARROW1"):
        return "Arrow file"
    # an Arrow stream has no name at its start; this mark stands before each of its messages
    if head.startswith(b"\xff\xff\xff\xff") and len(head) > 8:
        return "Arrow stream"
    # before any guess at a form of text, and never opened: reading a pickle runs what is in it
    _refuse(head, path)
    text = head.removeprefix(UTF8_BOM).lstrip()
    # bytes before names: a file of JSON Lines that is called .json, or .txt, is what it is
    if text.startswith(b"{"):
        return "JSON Lines"
    if text.startswith(b"["):
        return "JSON array"
    suffix = plain_suffix(path)
    if suffix in _TABLES:
        raise DataError(
            f"{path}: not {_with_article(_TABLES[suffix])} file, though it is called one",
            hint="copy or download the file again",
        )
    if suffix in _PICKLES and text:
        raise DataError(f"{path}: a pickle, or no data file at all", hint=_AGAIN)
    return _text_form(text, suffix, (TEXT_COLUMNS | LIST_COLUMNS).union(names))


def delimiter_of(head: bytes, name: Name) -> str:
    """What parts the cells of a CSV or TSV file: a semicolon where the header of CSV has no comma."""
    # spreadsheets write semicolons where the comma is the decimal point
    header = re.sub(rb'"[^"]*"', b"", head).split(b"\n", 1)[0]
    return "\t" if name == "TSV" else ";" if b";" in header and b"," not in header else ","


def plain_suffix(path: Path) -> str:
    """The suffix of a file's name, without that of a compression: `.csv` of `rows.CSV.gz`."""
    name = path.name.lower()
    for ending in _COMPRESSED_SUFFIXES:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _refuse(head: bytes, path: Path) -> None:
    found = next((one for one in _REFUSED if head.startswith(one.start)), None) or _archive(head)
    if found is not None:
        raise DataError(f"{path}: {found.what}, not a data file", hint=found.hint)
    wide = _wide(head)
    if wide is not None:
        raise DataError(
            f"{path}: the text is {wide}, wants UTF-8",
            hint=f"iconv -f {wide} -t UTF-8 FILE > rows.jsonl",
        )


def _archive(head: bytes) -> _Refused | None:
    # the length of the header in eight bytes, of which the upper four are 0, then the header in JSON
    if head[8:10] == b'{"' and head[4:8] == bytes(4):
        return _Refused(
            b"", "a safetensors file", "a human buffer is given as data.human, a model as --model"
        )
    if not head.startswith(b"PK\x03\x04"):
        return None
    # `torch.save` writes a zip archive with these members
    if b"/data.pkl" in head or b"/version" in head[:200]:
        return _Refused(b"", "a pickle of torch (such as human_latents.pt)", _AGAIN)
    if b"xl/" in head or b"[Content_Types].xml" in head:
        return _Refused(b"", "a spreadsheet", "save it as CSV in UTF-8")
    return _Refused(b"", "a zip archive", "unpack it and give the files in it")


def _wide(head: bytes) -> str | None:
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    start = head[:64]
    even, odd = start[0::2], start[1::2]
    # without a byte order mark: every second byte of ASCII is 0
    if len(start) >= 4 and not any(odd) and all(even):
        return "UTF-16LE"
    if len(start) >= 4 and not any(even) and all(odd):
        return "UTF-16BE"
    return None


def _text_form(text: bytes, suffix: str, known: Collection[str]) -> Name:
    # the name decides here: a line of text is a line of CSV too
    if suffix == ".csv":
        return "CSV"
    if suffix in (".tsv", ".tab"):
        return "TSV"
    line = text.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")
    for delimiter, form in (("\t", "TSV"), (",", "CSV"), (";", "CSV")):
        if _is_header(line, delimiter, known):
            return "TSV" if form == "TSV" else "CSV"
    # what is left is read as the commonest form, whose reader names the first line that is none
    return "JSON Lines"


def _is_header(line: str, delimiter: str, known: Collection[str]) -> bool:
    """Whether a line can be nothing but the names of columns, one of them known."""
    try:
        names = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return False
    return (
        len(set(names)) == len(names)
        and all(_PLAIN_NAME.fullmatch(name) for name in names)
        and any(name in known for name in names)
    )


def _with_article(word: str) -> str:
    return f"an {word}" if word[0] in "AEIOU" else f"a {word}"


class FormOfFile(NamedTuple):
    """A line of the table of forms in the documents."""

    form: str
    example: str
    read_as: str


FORMS_OF_FILES: Final = (
    FormOfFile("JSON Lines", "`rows.jsonl`", "one object a line, UTF-8; errors name `file:line`"),
    FormOfFile(
        "JSON array", "`rows.json`", "one list of objects, element by element; errors name `file: row N`"
    ),
    FormOfFile(
        "CSV, TSV",
        "`rows.csv`, `rows.tsv`",
        "a header, then rows; commas, semicolons or tabs; quotes as in RFC 4180",
    ),
    FormOfFile("gzip or zstd of these", "`rows.jsonl.gz`, `rows.csv.zst`", "unpacked while it is read"),
    FormOfFile("Parquet", "`rows.parquet`", "batch by batch; dates become ISO text, decimals text"),
    FormOfFile("Arrow", "`rows.arrow`, `rows.feather`", "IPC files and streams, as Parquet"),
    FormOfFile(
        "saved data set", "`folder/`", "what `Dataset.save_to_disk` of `datasets` wrote; of one split"
    ),
    FormOfFile(
        "folder of files",
        "`folder/`",
        "its data files in the order of their names, as one; all of one form and of one split",
    ),
    FormOfFile("standard input", "`-`", "any of the files above; copied to a temporary file first"),
    FormOfFile("pipe", "`<(zcat rows.gz)`, a FIFO", "the same"),
    FormOfFile(
        "data set on the hub",
        "`hf:owner/name:config/train`",
        "streamed once (extra `data`), then read from a copy",
    ),
    FormOfFile("URL of a file", "`file:///data/rows.jsonl`", "the file or folder it names"),
    FormOfFile("embedded world", "`lab:audit`", "a file inside the package"),
)
"""Everything that names rows on a command line and in a run file."""


def files_table() -> str:
    """`FORMS_OF_FILES` in Markdown."""
    lines = ["| form | example | how it is read |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(one)} |" for one in FORMS_OF_FILES)]) + "\n"
