"""A hot standby whose replay can be paused, so that it is behind by a known number of events."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from eventstore.database.embedded.embedded_server import EmbeddedServer
from support.standby import standby_of
from support.waiting import until, until_async


class Replica:
    """A hot standby of an embedded server.

    Attributes:
        url: of its database.
        folder: of its socket file.
    """

    def __init__(self, primary: EmbeddedServer, url: str) -> None:
        self.url = url
        self.folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        self._primary = primary

    def execute(self, statement: str) -> Any:
        """Runs a statement as the superuser of the standby; gives its first value."""
        with psycopg.connect(self.url.replace("eventstore@", "postgres@"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return None if row is None else row[0]

    def pause(self) -> None:
        """Stop the replay, once it has reached what the primary has written."""
        self.wait_for_replay()
        self.execute("SELECT pg_wal_replay_pause()")
        until(lambda: self.execute("SELECT pg_get_wal_replay_pause_state()") == "paused", "the replay is paused")

    def resume(self) -> None:
        """Resume the replay."""
        self.execute("SELECT pg_wal_replay_resume()")

    def wait_for_replay(self) -> None:
        """Return when the standby has replayed what the primary has written up to now."""
        until(self._replay_until(), "the standby has replayed everything")

    async def wait_for_replay_async(self) -> None:
        """Return when the standby has replayed what the primary has written up to now."""
        look = self._replay_until()

        async def looking() -> bool:
            return look()

        await until_async(looking, "the standby has replayed everything")

    def _replay_until(self) -> Any:
        with psycopg.connect(self._primary.superuser_url, autocommit=True) as connection:
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return lambda: self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{row[0]}'::pg_lsn")

    def set(self, name: str, value: str) -> None:
        """Changes a setting of the standby."""
        self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        shown = f"SELECT setting FROM pg_settings WHERE name = '{name}'"
        until(lambda: self.execute(shown) == value, f"{name} is {value}")

    def stop(self) -> None:
        """Ends the standby as a crash does."""
        self._pg_ctl("-m", "immediate", "stop")

    def start(self) -> None:
        """Starts it again."""
        options = f"-c listen_addresses= -c port=5432 -c unix_socket_directories={self.folder} -c hot_standby=on"
        self._pg_ctl("-l", str(self.folder / "log"), "-o", options, "start")

    def _pg_ctl(self, *arguments: str) -> None:
        owner = (self.folder / "data").stat()
        identity: dict[str, Any] = (
            {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if not os.geteuid() else {}
        )
        command = [str(self._primary.bin_dir / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/", **identity)


@contextmanager
def replica_of(primary: EmbeddedServer) -> Iterator[Replica]:
    """Copies a server, and starts the copy as its standby."""
    with standby_of(primary) as url:
        yield Replica(primary, url)
