"""``python -m tools.sizing`` measures what docs/guides/sizing.md says: bytes on disk, WAL, backups, memory and rates.

It appends messages as the benchmark does, a fifth of a kilobyte long in the median, in a database of its own that it
drops at the end, lets a worker apply them, and prints the figures for each event. Bytes depend on the messages alone,
and hardly on the machine; rates are ratios of two rates on the same machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Annotated

import psutil
import psycopg
import typer
from typer import Option

from agent_manager.backup import Archive, create_backup, open_target
from agent_manager.cli.main import run_program
from agent_manager.cli.options import DataDir, Json, read_settings
from agent_manager.cli.output import print_json, print_table
from eventstore import EventStore, Settings
from projections import catch_up
from tools.benchmark.messages import fill
from tools.benchmark.workspace import Workspace, prepared_workspace

GROUPS = {
    "log": "events",
    "search": "search_.*",
    "statistics": "statistics_.*",
    "read tables": "conversations|conversation_(actors|members)|messages|pending_messages|tasks|task_artifacts",
}
"""Regular expressions for the names of tables, by what they are for."""
_SIZES = """
SELECT c.relname::text, pg_table_size(c.oid)::bigint, pg_indexes_size(c.oid)::bigint
  FROM pg_class c
 WHERE c.relnamespace = %s::regnamespace
   AND c.relkind = 'r'
"""
_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_PROGRAM = "from agent_manager.cli import main; main()"

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def sizing(
    events: Annotated[int, Option(min=1000, help="The number of messages.")] = 200_000,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Measure bytes, memory and rates on the configured server, in a database of its own."""
    with prepared_workspace(read_settings(data_dir)) as workspace, workspace.migrated("sizing") as settings:
        figures = asyncio.run(measure(workspace, settings, events))
        figures |= dict(_memory(settings))
    if as_json:
        print_json(figures)
    else:
        print_table(("figure", ">value"), [(name, f"{value:,.2f}") for name, value in figures.items()], nothing="")


async def measure(workspace: Workspace, settings: Settings, events: int) -> dict[str, float]:
    """Return bytes for each event, and ratios of rates, by name."""
    async with EventStore(settings) as store:
        wal, begin = _wal_position(workspace), perf_counter()
        await fill(store, "sizing", events)
        appended, wal_of_log = perf_counter() - begin, _wal_position(workspace) - wal
        begin = perf_counter()
        await catch_up(store)
        applied, wal_of_all = perf_counter() - begin, _wal_position(workspace) - wal
        with tempfile.TemporaryDirectory() as folder:
            begin = perf_counter()
            manifest = await create_backup(store, Archive(open_target(folder)))
            backed_up = perf_counter() - begin
    await workspace.vacuum_and_checkpoint(settings.db_schema)
    figures: dict[str, float] = {}
    with psycopg.connect(workspace.url) as connection:
        rows = connection.execute(_SIZES, (settings.db_schema,)).fetchall()
    for group, names in GROUPS.items():
        tables = [(table, indexes) for name, table, indexes in rows if re.fullmatch(names, name)]
        figures[f"bytes an event: {group}"] = sum(table for table, _ in tables) / events
        figures[f"bytes an event: {group}, indexes"] = sum(indexes for _, indexes in tables) / events
    figures["bytes an event: everything"] = sum(figures.values())
    figures["bytes an event: backup"] = manifest.size / events
    figures["bytes an event: WAL of appends"] = wal_of_log / events
    figures["bytes an event: WAL of appends and workers"] = wal_of_all / events
    figures["events applied / appended in bulk, for each second"] = appended / applied
    figures["events backed up / appended in bulk, for each second"] = appended / backed_up
    return figures


def _wal_position(workspace: Workspace) -> int:
    with psycopg.connect(workspace.url) as connection:
        row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


def _memory(settings: Settings) -> Iterator[tuple[str, float]]:
    """Yield the memory in MB that no other process shares, of the programs and of a server process for a connection."""
    for name, arguments in {"eventstore up": ["up", "--port", "0"], "eventstore project": ["project"]}.items():
        with _running(settings, arguments) as process:
            yield f"MB: {name}", _unshared(process.pid)
            if name == "eventstore up":
                with psycopg.connect(settings.server_url() or "") as connection:
                    pids = connection.execute(_SESSIONS).fetchall()
                yield "connections: eventstore up", len(pids)
                if sizes := [_unshared(pid) for (pid,) in pids if psutil.pid_exists(pid)]:
                    yield "MB: PostgreSQL for each connection", sum(sizes) / len(sizes)


def _unshared(pid: int) -> float:
    return float(psutil.Process(pid).memory_full_info().uss) / 1e6


@contextmanager
def _running(settings: Settings, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command of eventstore until the end of the block, once it has started."""
    environment = os.environ | {"DATABASE_URL": settings.server_url() or "", "EVENTSTORE_SCHEMA": settings.db_schema}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", _PROGRAM, *arguments],
        env=environment, cwd=Path(tempfile.gettempdir()), stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while "Ctrl-C" not in (line := process.stdout.readline()):
            if not line:
                raise RuntimeError(f"eventstore {' '.join(arguments)} ended")
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def main() -> None:
    """Run the program."""
    run_program(app, "sizing")


if __name__ == "__main__":
    main()
