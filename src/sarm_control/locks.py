"""Locks that let only one process write an output; a second one is refused with a clear message.

The lock is a kernel lock (`flock`) on a small file `.NAME.lock` beside the output. The kernel releases it
when the process ends in any way, so after a crash the file is left but locks nothing. Within one process a
lock may be taken several times.

By hand, because the package filelock does not say which process holds a kernel lock, leaves its file behind,
and where there are no kernel locks takes a marker file that a crash would leave.
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
# Errors of network file systems without locks. On these no second writer can be refused.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_LONGEST_OWNER = 200


@dataclass
class _Lock:
    descriptor: int
    process: int
    times: int


class _State:
    """The locks of this process."""

    # of this process's threads: a kernel lock belongs to the whole process
    guard = threading.RLock()
    locks: dict[Path, _Lock] = {}  # noqa: RUF012
    for_command: list[Path] = []  # noqa: RUF012


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Keeps every other process from writing `path` during the block.

    Args:
        path: a file or folder that is written; the folder it lies in must exist.

    Yields:
        Whether the lock holds; false where the file system has no locks.

    Raises:
        OutputError: another process holds it, or its folder cannot be written.
    """
    place = path.resolve()
    certain = _take(place, path)
    try:
        yield certain
    finally:
        _release(place)


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
    """Releases everything that `hold` locked."""
    with _State.guard:
        while _State.for_command:
            _release(_State.for_command.pop())


def _take(place: Path, path: Path) -> bool:
    with _State.guard:
        mine = _State.locks.get(place)
        if mine is None:
            mine = _State.locks[place] = _Lock(_locked_descriptor(path, _lock_file(place)), os.getpid(), 0)
        mine.times += 1
        return mine.descriptor >= 0


def _release(place: Path) -> None:
    with _State.guard:
        lock = _State.locks[place]
        lock.times -= 1
        if lock.times:
            return
        del _State.locks[place]
        if lock.descriptor < 0:
            return
        # A forked child shares the lock, but only its parent may remove the file.
        if lock.process == os.getpid():
            _lock_file(place).unlink(missing_ok=True)
        os.close(lock.descriptor)


def _locked_descriptor(path: Path, file: Path) -> int:
    """An open, locked lock file; -1 where the file system has no locks."""
    while True:
        try:
            # no link is followed, because the file is emptied below; no program that we start
            # inherits the lock
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {os.strerror(error.errno or 0)} ({file.parent})",
                hint="choose an output path in a folder you can write to",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, descriptor):
                _write_owner(descriptor)
                return descriptor
        except BlockingIOError:
            owner = _read_owner(descriptor)
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
    """Whether the locked file still has its name.

    Between opening and locking, the previous holder may have removed the file. The lock would then be on a
    file that nobody else can open, and would keep nobody out.
    """
    try:
        found, own = os.stat(file, follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _write_owner(descriptor: int) -> None:
    """Writes into the lock file who holds it. A full disk is no reason not to lock."""
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _read_owner(descriptor: int) -> str:
    with contextlib.suppress(OSError, ValueError):
        owner = os.pread(descriptor, _LONGEST_OWNER, 0).decode().strip()
        if owner.isprintable() and owner:
            return f" ({owner})"
    return ""


def _lock_file(place: Path) -> Path:
    return place.with_name(f".{place.name}.{LOCK_SUFFIX}")
