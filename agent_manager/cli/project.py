"""The command project, and running workers until a signal arrives."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from time import monotonic
from typing import Any

import typer

from agent_manager.audit.sealer import check_sealing, describe_sealing, sealing
from agent_manager.cli.options import (
    AllowSuperuser,
    DataDir,
    LogFormat,
    LogLevel,
    MetricsHost,
    MetricsPort,
    read_settings,
)
from agent_manager.cli.output import errors
from agent_manager.metrics import Metrics
from agent_manager.retention.run import retaining
from agent_manager.settings import ServerSettings
from agent_manager.trace_export import exporting_traces
from eventstore import EventStore, __version__
from eventstore.concurrency import cancel_and_wait
from eventstore.database.connection import RECONNECT_SECONDS
from eventstore.database.liveness import REPLY_SECONDS
from eventstore.errors import ConnectionLost, LoginRefused, RetryableError, ServerUnreachable
from projections import Projection, Worker, load_projections
from projections.status import read_warnings

_log = logging.getLogger(__name__)


def project(
    data_dir: DataDir = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    allow_superuser: AllowSuperuser = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Run only the workers, which keep the read tables up to date. Ctrl-C stops them.

    Any number of workers may run, on any machine that reaches the server.
    """
    settings = read_settings(
        data_dir, is_service=True, metrics_host=metrics_host, metrics_port=metrics_port,
        allow_superuser=allow_superuser, log_format=log_format, log_level=log_level,
    )  # fmt: skip
    run_service(run_workers(settings))


def run_service(service: Coroutine[Any, Any, None]) -> None:
    """Run a service to its end, and export its traces."""
    with exporting_traces():
        asyncio.run(service)


async def run_workers(
    settings: ServerSettings,
    describe: Callable[[EventStore, Sequence[Projection]], None] | None = None,
    *services: Callable[[EventStore, Metrics], AbstractAsyncContextManager[None]],
) -> None:
    """Run workers until a signal arrives.

    Args:
        describe: prints what was started, and migrates the schema first; None to run workers alone, which wait for a
            server that is unreachable.
        services: run meanwhile, each until the end of its block.
    """
    check_sealing(settings)
    store = EventStore(settings)
    metrics = Metrics(store)
    async with AsyncExitStack() as stack:
        if settings.metrics_port is not None:
            from agent_manager.server.serve import listen, serving_metrics, url_of  # imports what few workers need

            listening = listen(settings.metrics_host, settings.metrics_port, "metrics-")
            await stack.enter_async_context(serving_metrics(store, metrics, listening))
            print_line("Metrics", f"{url_of(listening)}/metrics")
        await _run_until_signal(store, describe, [partial(service, store, metrics) for service in services])


async def _run_until_signal(
    store: EventStore,
    describe: Callable[[EventStore, Sequence[Projection]], None] | None,
    services: Sequence[Callable[[], AbstractAsyncContextManager[None]]],
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        store.server.stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)
    projections = load_projections(store.settings.projections)
    try:
        with errors.status("starting …"):
            if describe is not None and store.server.embedded is None:
                store.server.applied = await asyncio.to_thread(partial(store.server.migrator().up, for_service=True))
            is_open = await _open(store, stop, waits=describe is None)
    except RetryableError:
        if not stop.is_set():
            raise
        is_open = False
    if not is_open:
        return
    if applied := store.server.applied:
        versions = {"event": "migrations_applied", "migrations": list(applied)}
        _log.info("%d migration(s) applied", len(applied), extra=versions)
    try:
        worker = asyncio.create_task(Worker(store, projections).run())
        stopped = asyncio.create_task(stop.wait())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(sealing(store))
            await stack.enter_async_context(retaining(store))
            if describe is not None:
                describe(store, projections)
            else:
                names = ", ".join(projection.name for projection in projections)
                print_line("Workers", f"{names} follow the log; Ctrl-C stops")
                print_sealing(store)
            await _report_warnings(store, stopped)
            for service in services:
                await stack.enter_async_context(service())
            if describe is not None:
                print_line("Stop", "Ctrl-C")
            fields = {"version": __version__, "pid": os.getpid(), "schema": store.settings.db_schema}
            _log.info("started", extra={"event": "service_started"} | fields)
            await asyncio.wait((worker, stopped), return_when=asyncio.FIRST_COMPLETED)
            _log.info("stopping", extra={"event": "service_stopping"})
        await cancel_and_wait((worker, stopped))
        if not worker.cancelled() and (failure := worker.exception()) is not None:
            raise failure
    finally:
        await store.close()
    _log.info("stopped", extra={"event": "service_stopped"})


async def _report_warnings(store: EventStore, stopped: asyncio.Task[Any]) -> None:
    """Log what is wrong with the database, unless the service is stopped meanwhile."""
    reading = asyncio.create_task(read_warnings(store))
    await asyncio.wait((reading, stopped), timeout=REPLY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    warnings: list[str] = []
    with suppress(ConnectionLost, ServerUnreachable):  # the workers wait for a lost server and report it
        if reading.done():
            warnings = await reading
        elif not stopped.done():
            warnings = [f"the schema was not checked: that took longer than {REPLY_SECONDS:g} s"]
    reading.cancel()
    for warning in warnings:
        _log.warning("warning: %s", warning, extra={"event": "status_warning"})


async def _open(store: EventStore, stop: asyncio.Event, *, waits: bool) -> bool:
    """Open the store, and return whether it is open.

    Args:
        waits: whether to wait for a server that is unreachable, until ``stop`` is set.
    """
    lost_at: float | None = None
    while not stop.is_set():
        try:
            await store.open()
            if lost_at is not None:
                fields = {"event": "database_back", "seconds": round(monotonic() - lost_at, 1)}
                _log.info("the server answers again", extra=fields)
            return True
        except LoginRefused:
            raise  # waiting does not help
        except (ServerUnreachable, ConnectionLost) as error:
            if not waits:
                raise
            if lost_at is None:
                _log.warning("waiting for the server: %s", error, extra={"event": "database_lost"})
                lost_at = monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_SECONDS):
                await stop.wait()
    return False


def print_sealing(store: EventStore) -> None:
    """Print how the log is sealed, if it is."""
    if described := describe_sealing(store):
        print_line("Sealed log", described)


def print_line(heading: str, text: str) -> None:
    """Print a line about what was started."""
    typer.echo(f"{heading:<11} {text}")
