"""PgBouncer, in transaction mode, in front of a database of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventstore.database.embedded.cluster import LOGIN
from eventstore.database.embedded.installation import choose_account
from support.servers import DatabaseServer
from support.waiting import until

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def bouncer_to(server: DatabaseServer, url: str, **options: str) -> Iterator[str]:
    """The URL of the same database through PgBouncer's socket file; skips the test if it is not installed.

    Args:
        options: settings of PgBouncer, in addition to transaction mode.
    """
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    to = conninfo_to_dict(url)
    user, database = str(to["user"]), str(to["dbname"])
    target = make_conninfo(**{name: to[name] for name in ("host", "port", "user", "password") if to.get(name)})
    folder = Path(tempfile.mkdtemp(prefix="bouncer-"))
    lines = {"unix_socket_dir": str(folder), "listen_port": "6432", "auth_type": "any", "pool_mode": "transaction"}
    lines |= options
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\n* = {target}\n[pgbouncer]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    as_other: dict[str, Any] = {}
    account = choose_account(folder)
    if account.other:  # PgBouncer does not run as root either
        folder.chmod(0o755)
        for path in (folder, file, *(Path(value) for name, value in lines.items() if name.endswith("_file"))):
            os.chown(path, account.uid, account.gid)
        as_other = {"user": account.uid, "group": account.gid, "extra_groups": []}
        _let_in(server, account.name, user)
    through = f"postgresql://{quote(user)}@/{database}?host={quote(str(folder), safe='')}&port={lines['listen_port']}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, file], stdout=log, stderr=log, **as_other)

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
        shutil.rmtree(folder)


def _let_in(server: DatabaseServer, account: str, user: str) -> None:
    """Lets another account of this machine log in as a user of the server over its socket."""
    with psycopg.connect(server.superuser_url_of("postgres"), autocommit=True) as connection:
        row = connection.execute("SHOW ident_file").fetchone()
        assert row is not None
        with Path(row[0]).open("a") as file:
            file.write(f"{LOGIN} {account} {user}\n")
        connection.execute("SELECT pg_reload_conf()")
