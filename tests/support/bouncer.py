"""PgBouncer, in transaction mode, in front of a database of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventstore.database.account import choose_account
from support.waiting import until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def bouncer_to(url: str, **options: str) -> Iterator[str]:
    """The URL of the same database through PgBouncer's socket file; skips the test if it is not installed.

    Args:
        options: settings of PgBouncer, in addition to transaction mode.
    """
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    to = conninfo_to_dict(url)
    folder = Path(tempfile.mkdtemp(prefix="bouncer-"))
    account = choose_account(folder)
    server = make_conninfo(**{name: to[name] for name in ("host", "port", "user", "password") if to.get(name)})
    lines = {
        "unix_socket_dir": str(folder),
        "listen_port": "6432",
        "auth_type": "any",
        "pool_mode": "transaction",
    } | options
    text = f"[databases]\n* = {server}\n[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
    (folder / "pgbouncer.ini").write_text(text)
    as_other = {}
    if account.other:
        folder.chmod(0o755)
        files = [Path(value) for name, value in lines.items() if name.endswith("_file")]
        for path in (folder, folder / "pgbouncer.ini", *files):
            os.chown(path, account.uid, account.gid)
        as_other = {"user": account.uid, "group": account.gid, "extra_groups": []}
    through = f"postgresql://{quote(str(to['user']))}@/{to['dbname']}?host={quote(str(folder), safe='')}&port={lines['listen_port']}"
    log = (folder / "log").open("wb")
    process = subprocess.Popen([PROGRAM, folder / "pgbouncer.ini"], stdout=log, stderr=log, **as_other)  # type: ignore[call-overload]

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            psycopg.connect(through).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        until(answers, "PgBouncer answers")
        yield through
    finally:
        process.terminate()
        process.wait()
        log.close()
        shutil.rmtree(folder)
