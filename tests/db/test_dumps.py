"""pg_dump: a dump has every row or is an error, and is restored with and without the store's roles."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from support.pages import blocks
from support.servers import DatabaseServer

from agent_manager.auth import Directory
from agent_manager.settings import ServerSettings
from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import catch_up, load_projections, verify

BY_OWNER = ("--role=eventstore_owner", "--enable-row-security")
TABLES = ("events", "messages", "identity_keys", "conversation_members")


def programs_of(server: DatabaseServer) -> Path:
    """The folder of pg_dump, pg_restore and psql of the server's version; skips the test if there is none."""
    folder = server.pg_dump_folder
    if folder is None or not all((folder / program).is_file() for program in ("pg_restore", "psql")):
        pytest.skip(f"there is no pg_dump, pg_restore and psql of version {server.version}")
    return folder


def dump(server: DatabaseServer, url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Dump a database."""
    command = [str(programs_of(server) / "pg_dump"), *options, "--dbname", url]
    return subprocess.run(command, capture_output=True, check=False)


def restore(server: DatabaseServer, dumped: bytes, url: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    """Restore a dump in the custom format with pg_restore, or a plain one with psql."""
    is_plain = not dumped.startswith(b"PGDMP")
    command = ["psql", "--quiet", "--no-psqlrc", *(["-v", "ON_ERROR_STOP=1"] if "--exit-on-error" in options else [])]
    command = command if is_plain else ["pg_restore", *options]
    return subprocess.run(
        [programs_of(server) / command[0], *command[1:], "--dbname", url],
        input=dumped,
        capture_output=True,
        check=False,
    )


def counts(superuser_url: str) -> list[int]:
    """The number of rows of tables."""
    with psycopg.connect(superuser_url) as connection:
        found = [connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() for table in TABLES]
    return [int(row[0]) for row in found if row]


@pytest.fixture
async def filled(store: EventStore, superuser_url: str) -> list[int]:
    """The counts of a database with events of two tenants."""
    await Directory(store).add_tenant("acme")
    await Directory(store).add_key("default", "first")
    for tenant in ("default", "acme"):
        await store.append(uuid4(), [MessageAdded(role="user", content="hello")] * 3, tenant=tenant, user="ana")
    await catch_up(store)
    found = counts(superuser_url)
    assert found == [8, 6, 1, 2], "with two administrative acts"
    return found


def test_a_dump_has_every_row_or_is_an_error(
    server: DatabaseServer, filled: list[int], database_url: str, superuser_url: str
) -> None:
    roles = ("owner", "migrator", "writer", "reader", "auditor", "app", "projector", "search")
    complete = set()
    for (login, url), role, is_filtered in itertools.product(
        {"login": database_url, "superuser": superuser_url}.items(), ("", *roles), (True, False)
    ):
        options = [f"--role=eventstore_{role}"] if role else []
        done = dump(server, url, *options, *(["--enable-row-security"] if is_filtered else []))
        if done.returncode == 0:
            complete.add((login, role, is_filtered))
            lines = done.stdout.decode().splitlines()
            copied = {line.split()[1]: number for number, line in enumerate(lines) if line.startswith("COPY ")}
            for table, count in zip(TABLES, filled, strict=True):
                first = copied[f"public.{table}"] + 1
                assert lines.index("\\.", first) - first == count, (login, options, table)
    assert complete == {("superuser", "", True), ("superuser", "", False), ("superuser", "owner", True),
                        ("login", "owner", True)}  # fmt: skip
    failed = dump(server, database_url, "--enable-row-security", "--table=events").stderr.decode()
    assert "row-level security hides all rows from" in failed
    assert "pg_dump --role=eventstore_owner --enable-row-security" in failed


@pytest.mark.slow
async def test_the_commands_of_the_guide_dump_and_restore(
    server: DatabaseServer, store: EventStore, filled: list[int], database_url: str, superuser_url: str,
    own_server: EmbeddedServer, tmp_path: Path,
) -> None:  # fmt: skip
    make_roles(own_server)
    environment = {
        "PATH": f"{programs_of(server)}:/usr/bin:/bin",
        "DATABASE_URL": database_url,
        "SUPERUSER_URL": superuser_url,
        "RESTORED_SUPERUSER_URL": own_server.superuser_url,
    }
    for title in ("Dump", "Restore a dump"):
        [block] = [block for block in blocks("docs/guides/operations.md") if block.title == title]
        done = run_script(block.text, tmp_path, environment)
        assert (done.returncode, done.stderr) == (0, b"")
    sizes = [(tmp_path / name).stat().st_size for name in ("as-superuser.dump", "as-owner.dump")]
    assert abs(sizes[0] - sizes[1]) < 1000
    await check(store, own_server, filled)


def run_script(text: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run commands of a page."""
    return subprocess.run(["bash", "-euc", text], cwd=folder, env=environment, capture_output=True, check=False)


def make_roles(own_server: EmbeddedServer) -> None:
    """Create the roles of the store by migrating another database of the server."""
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("CREATE DATABASE first OWNER eventstore TEMPLATE template0")
    Migrator(own_server.url(database="first"), Settings(database_url=own_server.url(database="first"))).up()


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["custom", "plain"])
@pytest.mark.parametrize("is_superuser", [True, False], ids=["superuser", "owner"])
async def test_a_dump_is_restored_where_the_roles_were_created_first(
    server: DatabaseServer, store: EventStore, filled: list[int], database_url: str, superuser_url: str,
    own_server: EmbeddedServer, file_format: str, is_superuser: bool,
) -> None:  # fmt: skip
    dumped = dump(
        server,
        superuser_url if is_superuser else database_url,
        f"--format={file_format}",
        *(() if is_superuser else BY_OWNER),
    )
    assert dumped.returncode == 0, dumped.stderr
    make_roles(own_server)
    restored = restore(server, dumped.stdout, own_server.superuser_url, "--exit-on-error")
    assert restored.returncode == 0, restored.stderr
    await check(store, own_server, filled)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["custom", "plain"])
async def test_a_dump_is_restored_without_roles_which_are_created_afterwards(
    server: DatabaseServer, store: EventStore, filled: list[int], database_url: str, own_server: EmbeddedServer,
    file_format: str,
) -> None:  # fmt: skip
    options = ("--no-owner", "--no-acl")
    dumped = dump(server, database_url, f"--format={file_format}", *BY_OWNER, *options)
    with psycopg.connect(own_server.superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER ROLE eventstore BYPASSRLS")  # COPY does not write to a table with row-level security
        restored = restore(server, dumped.stdout, own_server.url(), *options)
        superuser.execute("ALTER ROLE eventstore NOBYPASSRLS")
    assert b'role "eventstore_owner" does not exist' in restored.stderr, "only policies are missing"
    settings = ServerSettings(_env_file=None, database_url=own_server.url())
    assert counts(own_server.superuser_url) == filled
    assert Migrator(own_server.url(), settings).make_roles() != []
    await check(store, own_server)


async def check(store: EventStore, own_server: EmbeddedServer, filled: list[int] | None = None) -> None:
    """The restored database has all rows, has row-level security in force, and goes on.

    Args:
        filled: the numbers of its rows; None if roles were created since, which is recorded.
    """
    if filled is not None:
        assert counts(own_server.superuser_url) == filled
    settings = ServerSettings(_env_file=None, database_url=own_server.url())
    assert Migrator(own_server.url(), settings).findings() == []
    async with EventStore(settings) as restored:
        logs = [[event async for event in each.read_log(all_tenants=True)] for each in (store, restored)]
        acts = [event.event_type for event in logs[1][len(logs[0]) :]]
        assert logs[0] == logs[1][: len(logs[0])]
        assert set(acts) <= ({"eventstore.roles_migrated"} if filled is None else set())
        assert not any(outcome.differences for outcome in await verify(restored, load_projections("")))
        appended = await restored.append(UUID(int=1), [MessageAdded(role="user", content="further")])
        assert appended.position > logs[1][-1].position
