"""The command project, and running workers until a signal arrives."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial

import typer

from agent_manager.cli.options import AllowSuperuser, DataDir, MetricsHost, MetricsPort, read_settings
from agent_manager.cli.output import errors, print_remark, print_warnings
from agent_manager.metrics import Metrics
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import ConnectionLost, LoginRefused, ServerUnreachable
from projections import Projection, Worker, load_projections
from projections.status import read_warnings

RETRY_SECONDS = 1.0
"""The pause between attempts to reach the server."""


def project(
    data_dir: DataDir = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    allow_superuser: AllowSuperuser = False,
) -> None:
    """Run only the workers, which keep the read tables up to date. Ctrl-C stops them.

    Any number of workers may run, on any machine that reaches the server.
    """
    settings = read_settings(
        data_dir, metrics_host=metrics_host, metrics_port=metrics_port, allow_superuser=allow_superuser
    )
    asyncio.run(run_workers(settings))


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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    projections = load_projections(store.settings.projections)
    with errors.status("starting …"):
        if describe is not None and store.server.embedded is None:
            store.server.applied = await asyncio.to_thread(partial(store.server.migrator().up, for_service=True))
        is_open = await _open(store, stop, waits=describe is None)
    if not is_open:
        return
    try:
        worker = asyncio.create_task(Worker(store, projections).run())
        stopped = asyncio.create_task(stop.wait())
        async with AsyncExitStack() as stack:
            if describe is not None:
                describe(store, projections)
            else:
                names = ", ".join(projection.name for projection in projections)
                print_line("Workers", f"{names} follow the log; Ctrl-C stops")
            with suppress(ConnectionLost, ServerUnreachable):  # the workers wait for a lost server and report it
                print_warnings(await read_warnings(store))
            for service in services:
                await stack.enter_async_context(service())
            if describe is not None:
                print_line("Stop", "Ctrl-C")
            await asyncio.wait((worker, stopped), return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait((worker, stopped))
        if not worker.cancelled() and (failure := worker.exception()) is not None:
            raise failure
        errors.print("stopping …")
    finally:
        await store.close()


async def _open(store: EventStore, stop: asyncio.Event, *, waits: bool) -> bool:
    """Open the store, and return whether it is open.

    Args:
        waits: whether to wait for a server that is unreachable, until ``stop`` is set.
    """
    is_reported = False
    while not stop.is_set():
        try:
            await store.open()
            return True
        except LoginRefused:
            raise  # waiting does not help
        except (ServerUnreachable, ConnectionLost) as error:
            if not waits:
                raise
            if not is_reported:
                print_remark(f"waiting for the server: {error}")
                is_reported = True
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await stop.wait()
    return False


def print_line(heading: str, text: str) -> None:
    """Print a line about what was started."""
    typer.echo(f"{heading:<11} {text}")
