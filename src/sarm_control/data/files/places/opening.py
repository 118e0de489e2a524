"""Where a data file's bytes come from: a file, a pipe, standard input; and what they are packed in."""

import atexit
import contextlib
import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from sarm_control.console import say
from sarm_control.data.files.forms import HEAD, Compression, Name, compression_of, delimiter_of, form_of
from sarm_control.data.lines import readable
from sarm_control.embedded import STANDARD_INPUT, Copy, input_file, is_input_name, is_pipe, keep_copy
from sarm_control.errors import DataError

_BUFFER = 1 << 18


class Opened(NamedTuple):
    """A file that is open at its beginning, decompressed; and how it is read."""

    stream: BinaryIO
    form: Name
    delimiter: str


@contextlib.contextmanager
def opened(file: Path, path: Path, names: Collection[str] = ()) -> Iterator[Opened]:
    """Opens a file and tells its form.

    Args:
        file: where it lies.
        path: its name, for messages.
        names: of columns that the header of a CSV file may have.

    Raises:
        DataError: it cannot be read, or has a form that is not read.
    """
    with readable(path), file.open("rb") as raw:
        head = raw.read(HEAD)
        raw.seek(0)
        compression = compression_of(head)
        if compression is None:
            form = form_of(head, path, names)
            yield Opened(raw, form, delimiter_of(head, form))
            return
        with _decompressed(raw, file, compression) as stream:
            head = stream.read(HEAD)
            form = form_of(head, path, names)
            # they are read from their end, and have a compression of their own
            if form in ("Parquet", "Arrow file", "Arrow stream"):
                raise DataError(f"{path}: {form} inside {compression}", hint="unpack the file")
            stream.seek(0)
            yield Opened(stream, form, delimiter_of(head, form))


def local_file(path: Path) -> Path:
    """Where the bytes of a file lie that can be read twice: pipes and standard input are copied first.

    Raises:
        DataError: standard input is a terminal; the embedded world has no file of that name.
    """
    file = input_file(path)
    if file != path or (path != STANDARD_INPUT and (is_input_name(path) or not is_pipe(file))):
        return file
    copy = _spooled(path)
    keep_copy(path, Copy(copy, str(path)))
    return copy


def _spooled(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix="sarm-input-")
    copy = Path(name)
    atexit.register(_remove, copy, os.getpid())
    with readable(path), open(handle, "wb") as target, _source(path) as source:
        shutil.copyfileobj(source, target, _BUFFER)
    what = "standard input" if path == STANDARD_INPUT else f"the pipe {path}"
    say(f"{what}: {copy.stat().st_size} bytes kept in a temporary file, to be read more than once")
    return copy


@contextlib.contextmanager
def _source(path: Path) -> Iterator[BinaryIO]:
    if path != STANDARD_INPUT:
        with path.open("rb") as stream:
            yield stream
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise DataError("-: standard input is a terminal, not a file of rows", hint="sarm ... - < rows.jsonl")
    yield cast("BinaryIO", sys.stdin.buffer)


def _remove(copy: Path, process: int) -> None:
    """Not by a process that was forked meanwhile."""
    if os.getpid() == process:
        copy.unlink(missing_ok=True)


def _decompressed(raw: BinaryIO, file: Path, compression: Compression) -> BinaryIO:
    packed: Any = gzip.GzipFile(fileobj=raw, mode="rb") if compression == "gzip" else _Zstd(file)
    return cast("BinaryIO", io.BufferedReader(packed, _BUFFER))


class _Zstd(io.RawIOBase):
    """A zstd file, decompressed; going back begins again at its beginning."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self._begin()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import pyarrow

        try:
            data = self._stream.read(len(buffer))
        except pyarrow.ArrowException as error:
            # without a number, by which `readable` knows damaged data from a file that is not
            # there
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset if whence == io.SEEK_SET else self._place + offset
        if target < self._place:
            self._begin()
        while self._place < target and self.read(min(_BUFFER, target - self._place)):
            pass
        return self._place

    def tell(self) -> int:
        return self._place

    def _begin(self) -> None:
        import pyarrow

        self._stream = pyarrow.input_stream(str(self._file), compression="zstd")
        self._place = 0
