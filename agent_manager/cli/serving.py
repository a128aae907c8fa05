"""The commands that keep running: ``up`` and ``project``."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence

import typer

from agent_manager.cli.options import DataDir, PgPort, read_settings
from agent_manager.cli.output import errors
from eventstore import EventStore, Settings
from eventstore.ending import end
from projections import Projection, Worker, load


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(up)
    app.command()(project)


def up(data_dir: DataDir = None, pg_port: PgPort = None) -> None:
    """Start everything: server, schema, workers. Ctrl-C stops it.

    Without a named server it starts the embedded PostgreSQL, or joins the one that another process started; the last
    to leave stops it. Then it applies the migrations that are missing and runs the workers that keep the read tables
    up with the log.
    """
    asyncio.run(_serve(read_settings(data_dir, pg_port=pg_port), _describe))


def project(data_dir: DataDir = None) -> None:
    """Run only the workers that keep the read tables up with the log. Ctrl-C stops them.

    Any number may run, on any machine that reaches the server.
    """
    asyncio.run(_serve(read_settings(data_dir), None))


async def _serve(settings: Settings, describe: Callable[[EventStore, Sequence[Projection]], None] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    projections = load(settings.projections)
    store = EventStore(settings)
    with errors.status("starting …"):
        if describe is not None and store.server.embedded is None:
            store.server.applied = await asyncio.to_thread(store.server.migrator().up)
        await store.open()
    try:
        worker = asyncio.create_task(Worker(store, projections).run())
        stopped = asyncio.create_task(stop.wait())
        if describe is not None:
            describe(store, projections)
        else:
            _say("Workers", ", ".join(projection.name for projection in projections) + " follow the log; Ctrl-C stops")
        await asyncio.wait((worker, stopped), return_when=asyncio.FIRST_COMPLETED)
        await end((worker, stopped))
        if not worker.cancelled() and (failure := worker.exception()) is not None:
            raise failure
        errors.print("stopping …")
    finally:
        await store.close()


def _describe(store: EventStore, projections: Sequence[Projection]) -> None:
    embedded = store.server.embedded
    settings = store.settings
    if embedded is None:
        _say("PostgreSQL", store.server.public_url)
        if settings.pg_port is not None:
            _say("", "--pg-port is for the embedded server and was not used")
    else:
        joined = "joined, it was running already" if embedded.joined else "started"
        _say("PostgreSQL", f"{embedded.version}, embedded, {joined}; data in {embedded.data_dir}")
        psql = shutil.which("psql") or embedded.bin_dir / "psql"
        _say("Connect", f"{psql} '{embedded.url()}'")
        if embedded.tcp_url is not None:
            _say("", f"{psql} '{embedded.tcp_url}'")
        if settings.pg_port is not None and f":{settings.pg_port}/" not in (embedded.tcp_url or ""):
            _say("", f"not on port {settings.pg_port}: the server runs already; stop it first to change that")
    applied = len(store.server.applied)
    migrations = f"{applied} migration(s) applied just now" if applied else "migrations are up to date"
    _say("Schema", f"{settings.db_schema}: {migrations}")
    _say("Workers", ", ".join(projection.name for projection in projections) + " follow the log")
    choice = (
        f" --data-dir {shlex.quote(str(settings.data_dir))}"
        if embedded and settings.data_dir != Settings().data_dir
        else ""
    )
    _say("Next", f"in another terminal: eventstore seed{choice}, or eventstore import{choice} FILE.jsonl,")
    _say("", f"then eventstore conversations{choice} and eventstore status{choice}")
    _say("Stop", "Ctrl-C")


def _say(what: str, where: str) -> None:
    typer.echo(f"{what:<11} {where}")
