"""The operating system account that the embedded server runs under.

PostgreSQL refuses to run as root. Root therefore steps down: to the owner of the data if there is one, else to
``postgres``, else to ``nobody``. Everybody else runs the server as themselves.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eventstore.errors import EmbeddedServerError

# Nothing of the caller's environment reaches the server: PGDATA, PGPORT, LC_* and TZ would all change what it does.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


@dataclass(frozen=True)
class Account:
    """Whom the server runs as.

    Attributes:
        name: the login name.
        groups: all groups that the account belongs to.
        other: True if it is not the account of this process, so that children must step down to it.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    other: bool

    def run(self, command: list[str], hand_on: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command as this account, with these descriptors, and return what it printed."""
        return subprocess.run(
            command,
            cwd="/",
            env=CLEAN_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            pass_fds=hand_on,
            user=self.uid if self.other else None,
            group=self.gid if self.other else None,
            extra_groups=self.groups if self.other else None,
        )

    @contextlib.contextmanager
    def way_to(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A path by which the account reaches a folder of its own, and the descriptors that a child needs for it.

        Where a folder above is closed to the account, that is the kernel's link to a descriptor which is opened
        before stepping down. Nothing above is changed.

        Raises:
            EmbeddedServerError: there is no way on this system.
        """
        if not self.other or all(self._may_enter(above.stat()) for above in folder.resolve().parents):
            yield str(folder), ()
            return
        if sys.platform != "linux":
            raise EmbeddedServerError(
                f"the account {self.name}, which runs the server, cannot reach {folder}: "
                "choose another EVENTSTORE_DATA_DIR"
            )
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{fd}", (fd,)
        finally:
            os.close(fd)

    def _may_enter(self, folder: os.stat_result) -> bool:
        if folder.st_uid == self.uid:
            return bool(folder.st_mode & stat.S_IXUSR)
        if folder.st_gid in self.groups:
            return bool(folder.st_mode & stat.S_IXGRP)
        return bool(folder.st_mode & stat.S_IXOTH)


def choose_account(data_dir: Path) -> Account:
    """The account for a server with this data directory.

    Raises:
        EmbeddedServerError: the account has no name, or root finds nobody to step down to.
    """
    if os.geteuid() != 0:
        return _account(_entry(os.geteuid()), other=False)
    for folder in (data_dir / "pgdata", data_dir):
        if folder.exists() and folder.stat().st_uid != 0:
            return _account(_entry(folder.stat().st_uid), other=True)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return _account(entry, other=True)
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and there is no account named postgres or nobody to step down to: "
        "make one (useradd --system postgres), or run as an ordinary user"
    )


def account_name(uid: int) -> str:
    """The login name of a user id.

    Raises:
        EmbeddedServerError: it has none.
    """
    return _entry(uid).pw_name


def _entry(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedServerError(
            f"user id {uid} has no name in the system's user database, and PostgreSQL needs one: "
            "add it to /etc/passwd, run as another user, or set DATABASE_URL"
        ) from None


def _account(entry: pwd.struct_passwd, *, other: bool) -> Account:
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)) if other else ()
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, other)
