"""Locks between processes, and files that only their owner may read.

A lock is a flock(2): the kernel releases it with the last copy of its descriptor, also when the process is killed. It
belongs to the open file, so every handle in a process has a separate lock.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from pathlib import Path
from typing import Self

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


def open_private(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file that only its owner may read, and create it if it is missing.

    A file that root creates gets the owner of its folder, who may be the next user. Links are refused, because root may
    work in a folder that another account can write to.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0 and os.fstat(fd).st_uid == 0:
        folder = path.parent.stat()
        os.fchown(fd, folder.st_uid, folder.st_gid)
    return fd


def replace_file(path: Path, text: str, uid: int, gid: int) -> None:
    """Replace a private file atomically. A link in its place is not followed."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchown(fd, uid, gid)
        os.fsync(fd)
    os.replace(temporary, path)


class FileLock:
    """A lock on a file, shared or exclusive. Children inherit its descriptor only if it is passed to them."""

    def __init__(self, path: Path) -> None:
        self.fd = open_private(path)
        _open_locks.add(self)

    def shared(self) -> None:
        """Wait until the lock is not held exclusively, and share it."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def exclusive(self) -> None:
        """Wait until the lock is free, and hold it exclusively."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Share the lock unless it is held exclusively elsewhere. A lock held before is released if this fails."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Hold the lock exclusively unless it is held elsewhere. A lock held before is released if this fails."""
        return self._try(fcntl.LOCK_EX)

    def close(self) -> None:
        """Release the lock. A process that has inherited the descriptor still holds it."""
        if self.fd >= 0:
            _open_locks.discard(self)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self.fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def is_free(path: Path) -> bool:
    """Return whether the lock is free at this moment."""
    with FileLock(path) as lock:
        return lock.try_exclusive()


def _close_in_forked_child() -> None:
    # A child of os.fork() shares its parent's open files, and would hold its locks as long as it lives.
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_close_in_forked_child)
