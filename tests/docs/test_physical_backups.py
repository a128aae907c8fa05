"""The commands of the guide on physical backups restore a server to a moment, and the store goes on."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.pages import blocks
from support.servers import open_folder
from support.waiting import until

from agent_manager.settings import ServerSettings
from eventstore import Event, EventStore, MessageAdded
from eventstore.database.migrate import Migrator
from projections import catch_up, load_projections, verify

PAGE = "docs/guides/physical-backups.md"
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
DOCUMENTED_TIME = "2026-11-30 02:15:00+00"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.any_server,
    pytest.mark.skipif(not DEBIAN_15.exists(), reason="PostgreSQL 15 is not installed in Debian's place"),
]


class Machine:
    """A folder in place of the root of a machine, whose account postgres runs the commands of the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        is_root = os.geteuid() == 0
        account = pwd.getpwnam("postgres") if is_root else pwd.getpwuid(os.geteuid())
        self._identity: dict[str, Any] = (
            {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if is_root else {}
        )
        for name in (
            "etc",
            "var/lib/postgresql/15",
            "var/lib/pgbackrest",
            "var/log/postgresql",
            "mnt/archive",
            "socket",
        ):
            (folder / name).mkdir(parents=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        self.environment = {
            "PATH": f"{DEBIAN_15}:/usr/bin:/bin",
            "PGHOST": str(folder / "socket"),
            "PGUSER": "postgres",
            "PGBACKREST_CONFIG": str(folder / "etc/pgbackrest.conf"),
            "PGBACKREST_LOCK_PATH": str(folder / "lock"),
            "PGBACKREST_LOG_LEVEL_FILE": "off",
            "PGBACKREST_PG1_SOCKET_PATH": str(folder / "socket"),
        }
        self._time = DOCUMENTED_TIME
        data = f"{folder}/var/lib/postgresql/15/main"
        self.run(f"initdb --pgdata {data} --auth trust --encoding UTF8 --locale C.UTF-8 --data-checksums")
        self._configure(f"listen_addresses = ''\nunix_socket_directories = '{folder}/socket'\n")

    @property
    def url(self) -> str:
        """The URL of the store's database."""
        return f"postgresql://eventstore@/flowagents?host={self._folder}/socket"

    def run(self, script: str) -> None:
        """Run a script as the account; it must succeed."""
        log = self._folder / "output"
        with log.open("w") as output:  # a file, because the server would keep a pipe open
            done = subprocess.run(
                ["bash", "-euxc", script], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=self._folder, env=self.environment, check=False, timeout=120, **self._identity,
            )  # fmt: skip
        assert done.returncode == 0, log.read_text(encoding="utf-8")

    def install(self, title: str, number: int = 0) -> None:
        """Write a file of the page; a part of the server's configuration is appended to it."""
        text = self._adapted([block.text for block in blocks(PAGE) if block.title == title][number])
        if title.endswith("pgbackrest.conf"):
            Path(self._adapted(title)).write_text(text)
        else:
            self._configure(text)

    def follow(self, title: str) -> None:
        """Run the commands of the page with this title."""
        [block] = [block for block in blocks(PAGE) if block.title == title]
        self.run(self._adapted(block.text))

    def start(self) -> None:
        """Start the server, with a login and a database."""
        data, log = f"{self._folder}/var/lib/postgresql/15/main", f"{self._folder}/var/log/postgresql/log"
        self.run(f"pg_ctl start --wait --pgdata {data} --log {log}")
        self.run("psql -d postgres -c 'CREATE ROLE eventstore LOGIN CREATEROLE'")
        self.run("psql -d postgres -c 'CREATE DATABASE flowagents OWNER eventstore'")

    def stop(self) -> None:
        """Stop the server, if it runs."""
        self.run(f"pg_ctl stop --pgdata {self._folder}/var/lib/postgresql/15/main --mode immediate || true")

    def query(self, statement: str) -> Any:
        """Return the value of a query as superuser."""
        with psycopg.connect(
            f"postgresql://postgres@/postgres?host={self._folder}/socket", autocommit=True
        ) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return row and row[0]

    def set_time(self, time: str) -> None:
        """Use a time in place of the one on the page."""
        self._time = time

    def archive(self) -> None:
        """Wait until the present WAL is archived."""
        segment = self.query("SELECT pg_walfile_name(pg_current_wal_lsn())")
        self.query("SELECT pg_switch_wal()")
        until(
            lambda: (self.query("SELECT last_archived_wal FROM pg_stat_archiver") or "") >= segment,
            "the WAL is archived",
        )

    def _adapted(self, text: str) -> str:
        text = text.replace(DOCUMENTED_TIME, self._time)
        for name in ("/etc/", "/var/lib/", "/var/log/", "/mnt/"):
            text = text.replace(name, f"{self._folder}{name}")
        return text

    def _configure(self, text: str) -> None:
        with (self._folder / "var/lib/postgresql/15/main/postgresql.conf").open("a") as file:
            file.write(text)


@contextmanager
def machine() -> Iterator[Machine]:
    """A machine, whose server is stopped at the end."""
    with open_folder() as folder:
        made = Machine(folder)
        try:
            yield made
        finally:
            made.stop()


async def events_of(store: EventStore) -> list[Event]:
    """All events, with their positions, versions, ids, times and digests."""
    return [event async for event in store.read_log(all_tenants=True)]


async def append(store: EventStore, text: str) -> None:
    """Append some events, and let the read tables follow."""
    await store.append(uuid4(), [MessageAdded(role="user", content=f"{text} {number}") for number in range(20)])
    await catch_up(store)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            "pgBackRest",
            marks=pytest.mark.skipif(not shutil.which("pgbackrest"), reason="pgBackRest is not installed"),
        ),
        "PostgreSQL's own programs",
    ],
)
async def test_a_server_is_restored_to_a_moment_and_the_store_goes_on(clean_environment: None, way: str) -> None:
    has_pgbackrest = way == "pgBackRest"
    with machine() as server:
        if has_pgbackrest:
            server.install("/etc/pgbackrest.conf")
        server.install("/etc/postgresql/15/main/conf.d/archive.conf", 0 if has_pgbackrest else 1)
        server.start()
        settings = ServerSettings(database_url=server.url)
        Migrator(server.url, settings).up()
        async with EventStore(settings) as store:
            await append(store, "first")
            server.follow("Set it up once" if has_pgbackrest else "Make a base backup")
            await append(store, "second")
            if has_pgbackrest:
                server.follow("Every day")
                await append(store, "third")
            expected = await events_of(store)
            server.set_time(server.query("SELECT clock_timestamp()::text"))
            await append(store, "lost")
            lost = await events_of(store)
            server.archive()
        server.follow("Restore with pgBackRest" if has_pgbackrest else "Restore a base backup")
        until(lambda: server.query("SELECT NOT pg_is_in_recovery()"), "the server is promoted")
        [skip] = [block.text for block in blocks(PAGE) if block.language == "sql"]
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(skip.encode())
        async with EventStore(settings) as store:
            assert await events_of(store) == expected
            outcomes = await verify(store, load_projections(""))
            assert outcomes
            assert not any(outcome.differences for outcome in outcomes)
            await append(store, "further")
            assert (await events_of(store))[-20].position > lost[-1].position
