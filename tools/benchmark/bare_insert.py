"""The limit: the same rows inserted by the same driver, or by pgbench, into a table with the same columns and indexes.

What the store's function computes (version, salt, digest) is computed beforehand and sent along.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int4

from eventstore.database.connection import Connection
from eventstore.database.embedded.installation import wheel_bin_dir
from eventstore.database.queries import query
from eventstore.errors import EmbeddedServerError, ServerError
from tools.benchmark.measurement import Benchmark, Rate, Side, Stored, Throughput, driver, proven
from tools.benchmark.messages import Message, streams
from tools.benchmark.workspace import APPLICATION, Workspace

_INSERT = query("tools.benchmark", "bare_insert")
_INSERT_MANY = query("tools.benchmark", "bare_insert_many")
_RESERVED_CONNECTIONS = 25
"""Server connections left for the store itself and for others."""
_PGBENCH_MESSAGES, _PGBENCH_THREADS = 100, 2
"""pgbench draws one of the messages for each INSERT."""

Row = tuple[Message, dict[str, Any]]


def row(message: Message) -> Row:
    """Return a message and its content as a dict; encoding it is part of the insert."""
    return message, message.content()


class SharedConnections:
    """Connections that any number of callers share; a caller that finds none free waits."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
        for connection in connections:
            self._free.put_nowait(connection)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """Lend a connection."""
        connection = await self._free.get()
        try:
            yield connection
        finally:
            self._free.put_nowait(connection)


def bare_side(bench: Benchmark, callers: int, connections: list[Connection]) -> Side:
    """Return the side that inserts rows by a number of callers over these connections, a commit for each row."""
    shared = SharedConnections(connections)

    async def with_own(caller: int, given: Row) -> None:
        await _insert(connections[caller], given)

    async def with_shared(_: int, given: Row) -> None:
        async with shared.one() as connection:
            await _insert(connection, given)

    act = with_own if callers == len(connections) else with_shared
    return bench.rate(Throughput(callers, row, driver(act), bare_rows(bench)))


def bare_rows(bench: Benchmark) -> Stored:
    """Return a function that counts the rows of the bare table."""
    return bench.counter("SELECT count(*) FROM bare_events", bench.workspace.schema)


async def _insert(connection: Connection, given: Row) -> None:
    message, content = given
    await connection.execute(
        _INSERT,
        (
            Int4(message.version), message.conversation_id, message.id, message.actor,
            Jsonb(content), Jsonb({}), message.salt, message.digest,
        ),
        prepare=True,
    )  # fmt: skip


async def insert_many(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert all rows by one statement, from binary arrays."""
    await connection.execute(
        _INSERT_MANY,
        (
            [Int4(message.version) for message, _ in rows],
            [message.conversation_id for message, _ in rows],
            [message.id for message, _ in rows],
            [message.actor for message, _ in rows],
            [Jsonb(content) for _, content in rows],
            [Jsonb({})] * len(rows),
            [message.salt for message, _ in rows],
            [message.digest for message, _ in rows],
        ),
        prepare=True,
    )


async def available_connections(bench: Benchmark) -> int:
    """Return how many connections the server has left for one side."""
    async with bench.connection() as connection:
        found = await connection.execute(
            "SELECT current_setting('max_connections')::integer - count(*)"
            "  FROM pg_stat_activity a WHERE a.application_name <> %s",
            (APPLICATION,),
        )
        row = await found.fetchone()
    assert row is not None
    return max(1, int(str(row[0])) - _RESERVED_CONNECTIONS)


def pgbench_sides(bench: Benchmark, clients: int) -> list[Side]:
    """Return the side that inserts by pgbench with a number of clients, as information, if pgbench is installed."""
    path = shutil.which("pgbench")
    with suppress(EmbeddedServerError):
        beside_the_server = wheel_bin_dir() / "pgbench"
        path = str(beside_the_server) if beside_the_server.exists() else path
    if path is None:
        bench.skip("pgbench: not found on PATH")
        return []

    async def measure(seed: str) -> float:
        (stream,) = streams(f"pgbench/{seed}", 1)
        with TemporaryDirectory() as folder:
            files = _write_scripts(Path(folder), list(islice(stream, _PGBENCH_MESSAGES)))
            async with proven("pgbench", bare_rows(bench)) as inserted:
                seconds = bench.scale.seconds / bench.scale.slices
                rate = await _run_pgbench(path, bench.workspace, clients, files, seconds)
                inserted(rate.items)
            return float(rate)

    return [measure]


def _write_scripts(folder: Path, messages: list[Message]) -> list[str]:
    template = query("tools.benchmark", "pgbench_insert")
    files = []
    for number, message in enumerate(messages):
        content = json.dumps(message.content(), ensure_ascii=False).replace("'", "''")
        file = folder / f"{number}.sql"
        text = template.replace("{actor}", message.actor).replace("{content}", content)
        file.write_text(
            text.replace("{salt}", message.salt.hex()).replace("{digest}", message.digest.hex()), encoding="utf-8"
        )
        files.append(str(file))
    return files


async def _run_pgbench(path: str, workspace: Workspace, clients: int, files: list[str], seconds: float) -> Rate:
    given: dict[str, Any] = conninfo_to_dict(workspace.url)
    password = given.pop("password", None)
    environment = os.environ | {"PGOPTIONS": f"-c search_path={workspace.schema}", "PGCLIENTENCODING": "UTF8"}
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    process = await asyncio.create_subprocess_exec(
        path, "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(_PGBENCH_THREADS, clients)),
        "-T", str(max(1, round(seconds))),  # pgbench takes whole seconds only
        *(word for file in files for word in ("-f", file)), make_conninfo(**given),
        env=environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    done = re.search(r"^number of transactions actually processed: (\d+)", out.decode(), re.MULTILINE)
    found = re.search(r"^tps = ([0-9.]+)", out.decode(), re.MULTILINE)
    if process.returncode or not found or not done or not float(found[1]):
        raise ServerError(f"pgbench failed: {err.decode(errors='replace').strip().rpartition(chr(10))[2]}")
    return Rate(int(done[1]), int(done[1]) / float(found[1]))
