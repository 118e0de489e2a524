"""One output, one process: a second writer of the same file or folder is refused in words.

The lock is the kernel's (`flock`), on a small file `.NAME.lock` beside the output. The kernel lets go
of it when the process ends, however it ends, so a crash leaves a file that locks nothing. Within one
process a lock may be taken again. By hand, because the package filelock does not say who holds a
kernel's lock, leaves its file behind, and where there are no locks takes a marker that a crash would leave.
"""

import contextlib
import errno
import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sarm_control.errors import OutputError

LOCK_SUFFIX = "lock"
# Network file systems without locks answer with these: there nobody can be refused.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_LONGEST_OWNER = 200


@dataclass
class _Lock:
    descriptor: int
    process: int
    times: int


class _State:
    """What this process holds."""

    guard = threading.RLock()
    locks: dict[Path, _Lock] = {}  # noqa: RUF012
    for_command: list[Path] = []  # noqa: RUF012


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keeps every other process from writing `path` while the block lasts.

    Args:
        path: a file or folder that is written; the folder it lies in must exist.

    Yields:
        Whether no other process can be writing it: false where files cannot be locked.

    Raises:
        OutputError: another process holds it, or its folder cannot be written.
    """
    place = path.resolve()
    certain = _take(place, path)
    try:
        yield certain
    finally:
        _give_back(place)


def hold(path: Path) -> None:
    """Keeps every other process from writing `path` until `let_go`, or the end of this process.

    Commands do this before they work, so that two of them never work for one output.

    Raises:
        OutputError: see `locked`.
    """
    place = path.resolve()
    with _State.guard:
        if place not in _State.for_command:
            _take(place, path)
            _State.for_command.append(place)


def let_go() -> None:
    """Gives back everything that `hold` took."""
    with _State.guard:
        while _State.for_command:
            _give_back(_State.for_command.pop())


def _take(place: Path, path: Path) -> bool:
    with _State.guard:
        mine = _State.locks.get(place)
        if mine is None:
            mine = _State.locks[place] = _Lock(_locked_descriptor(path, _file(place)), os.getpid(), 0)
        mine.times += 1
        return mine.descriptor >= 0


def _give_back(place: Path) -> None:
    with _State.guard:
        lock = _State.locks[place]
        lock.times -= 1
        if lock.times:
            return
        del _State.locks[place]
        if lock.descriptor < 0:
            return
        # A forked child has the same lock, but it is its parent's to take away.
        if lock.process == os.getpid():
            _file(place).unlink(missing_ok=True)
        os.close(lock.descriptor)


def _locked_descriptor(path: Path, file: Path) -> int:
    """An open, locked lock file; -1 where the file system has no locks."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {os.strerror(error.errno or 0)} ({file.parent})",
                hint="choose an output path in a folder you can write to",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, descriptor):
                _sign(descriptor)
                return descriptor
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise OutputError(
                f"{path} is being written by another process{owner}",
                hint="wait until it is done or stop it, or choose another output",
            ) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            file.unlink(missing_ok=True)
            return -1
        os.close(descriptor)


def _is_still(file: Path, descriptor: int) -> bool:
    """Whether the locked file has its name yet: its last owner may have removed it meanwhile."""
    try:
        found, own = os.stat(file, follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _sign(descriptor: int) -> None:
    """Says whose lock it is; a full disk cannot keep anybody from locking."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _owner(descriptor: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        said = os.pread(descriptor, _LONGEST_OWNER, 0).decode().strip()
        if said.isprintable() and said:
            return f" ({said})"
    return ""


def _file(place: Path) -> Path:
    return place.with_name(f".{place.name}.{LOCK_SUFFIX}")
