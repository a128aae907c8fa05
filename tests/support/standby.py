"""A hot standby of an embedded server: copied from it, and following it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import psycopg

from eventstore.database.embedded.embedded_server import EmbeddedServer
from support.servers import memory_folder, open_folder
from support.waiting import until

_REPLICATION = "local replication all trust\n"  # the socket lies in a private folder


@contextmanager
def standby_of(primary: EmbeddedServer) -> Iterator[str]:
    """Starts one, and gives the URL of its database ``flowagents``."""
    pgdata = primary.data_dir / "pgdata"
    owner = pgdata.stat()
    identity: dict[str, Any] = (
        {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if not os.geteuid() else {}
    )

    def run(program: str, *arguments: str) -> None:
        command = [str(primary.bin_dir / program), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/", **identity)

    with (pgdata / "pg_hba.conf").open("a") as rules:
        rules.write(_REPLICATION)
    with psycopg.connect(primary.superuser_url, autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
    with open_folder(memory_folder()) as folder:
        os.chown(folder, owner.st_uid, owner.st_gid)
        source = f"host={primary.socket_dir} port=5432 user=postgres"
        run("pg_basebackup", "-d", source, "-D", str(folder / "data"), "-R", "-X", "stream", "-c", "fast", "--no-sync")
        options = f"-c listen_addresses= -c port=5432 -c unix_socket_directories={folder} -c hot_standby=on"
        log = str(folder / "log")
        run("pg_ctl", "-D", str(folder / "data"), "-l", log, "-o", options, "-w", "start")
        try:
            yield f"postgresql://eventstore@/flowagents?host={quote(str(folder), safe='')}&port=5432"
        finally:
            run("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "-w", "stop")


def promote(connection: psycopg.Connection[Any]) -> None:
    """Promote a standby. Recovery may cancel a statement there that waits for it, so nothing waits inside one."""
    connection.execute("SELECT pg_promote(wait => false)")

    def is_promoted() -> bool:
        with suppress(psycopg.errors.SerializationFailure):
            return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        return False

    until(is_promoted, "the standby is promoted")
