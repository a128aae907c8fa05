"""Locks between processes, and files that only their owner may read.

A lock is a flock(2): the kernel drops it with the last copy of its descriptor, also when the process is
killed. It belongs to the open file, so that every handle in a process has one of its own.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file that only its owner may read, making it if it is missing.

    A file that root makes gets the owner of its folder, who may be the next to come without root.
    Links are refused, because root may be working in a folder that somebody else can write to.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0 and os.fstat(fd).st_uid == 0:
        folder = path.parent.stat()
        os.fchown(fd, folder.st_uid, folder.st_gid)
    return fd


def replace_file(path: Path, text: str, uid: int, gid: int) -> None:
    """Put a private file in place whole: a crash leaves the old one, and a planted link is not followed."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchown(fd, uid, gid)
        os.fsync(fd)
    os.replace(temporary, path)


class FileLock:
    """A lock on a file, shared or exclusive. Its descriptor passes to no child unless handed on."""

    def __init__(self, path: Path) -> None:
        self.fd = open_private(path)
        _open_locks.add(self)

    def shared(self) -> None:
        """Wait until nobody holds the lock exclusively."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def exclusive(self) -> None:
        """Wait until nobody else holds the lock."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Share the lock unless somebody holds it exclusively. A lock held before is given up if this fails."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Take the lock unless somebody else holds it. A lock held before is given up if this fails."""
        return self._try(fcntl.LOCK_EX)

    def close(self) -> None:
        """Leave the lock. A process to which the descriptor was handed on still holds it."""
        if self.fd >= 0:
            _open_locks.discard(self)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self.fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock at this moment."""
    with FileLock(path) as lock:
        return lock.try_exclusive()


def _close_in_forked_child() -> None:
    # A child made by os.fork() shares its parent's open files, and would keep its locks for as long as it lives.
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_forked_child)
