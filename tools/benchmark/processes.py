"""Processes beside the benchmark's own: the workers of the projections, subscribers, listeners, rebuilders.

``python -m tools.benchmark.processes ROLE`` is one of them, on the server that the settings name. It prints ``ready``;
``subscribe`` and ``listen`` then print, for each event or notification, the time on the monotonic clock that all
processes of a machine share, in nanoseconds. ``follow`` is a subscriber that prints nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from tempfile import TemporaryFile
from time import monotonic_ns
from typing import IO, Any

from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import ServerError
from eventstore.read import horizon
from projections import rebuild, select_projections

CHANNEL = "eventstore_bench"
READ_TABLES = ("conversations", "messages", "tasks")
_START_SECONDS, _END_SECONDS = 60, 20


class ChildProcess:
    """A running process whose lines can be read."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    async def line(self) -> str:
        """Return the next line that the process prints.

        Raises:
            ServerError: it has ended, or prints nothing for a minute.
        """
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _START_SECONDS)
        except TimeoutError:
            line = b""
        if not line:
            raise self._failure()
        return line.decode().rstrip("\n")

    async def wait_for(self, result: Coroutine[Any, Any, None]) -> None:
        """Wait for something that the process brings about.

        Raises:
            ServerError: the process ended before.
        """
        ended = asyncio.create_task(self._process.wait())
        waiting = asyncio.create_task(result)
        try:
            await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise self._failure()
            await waiting
        finally:
            await cancel_and_wait((ended, waiting))

    async def stop(self) -> None:
        """Interrupt the process, as Ctrl-C would, and wait until it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _failure(self) -> ServerError:
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        return ServerError(f"a process beside the benchmark has ended or hangs; its last error output: {last}")


@asynccontextmanager
async def running(settings: Settings, *arguments: str, ready: str = "ready") -> AsyncIterator[ChildProcess]:
    """Run Python with these arguments for the length of a block, once it has printed a line with the word."""
    assert settings.database_url is not None
    environment = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "EVENTSTORE_SCHEMA": settings.db_schema,
        "EVENTSTORE_TENANT": settings.tenant,
        # Children import what this process imports, ``tools`` of the source tree included.
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    with TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=errors
        )
        child = ChildProcess(process, errors)
        try:
            while ready not in await child.line():
                pass
            yield child
        finally:
            await child.stop()


def workers(settings: Settings) -> AbstractAsyncContextManager[ChildProcess]:
    """Run ``eventstore project``, once it follows the log."""
    program = "from agent_manager.cli import main; main()"
    return running(settings, "-c", program, "project", ready="follow the log")


def process(settings: Settings, role: str) -> AbstractAsyncContextManager[ChildProcess]:
    """Run a process of this module, once it is ready."""
    return running(settings, "-m", __name__, role)


async def _subscribe(*, prints_events: bool) -> None:
    """Follow the log from its end."""
    async with EventStore() as store:
        position = await horizon(store.connections.auditor)
        print("ready", flush=True)
        async for _ in store.subscribe(after=position):
            if prints_events:
                print(monotonic_ns(), flush=True)


async def _listen() -> None:
    """Wait for notifications on a connection like the store's."""
    async with EventStore() as store, await store.connect() as connection:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        print("ready", flush=True)
        async for _ in connection.notifies():
            print(monotonic_ns(), flush=True)


async def _rebuild() -> None:
    """Rebuild the read tables repeatedly."""
    async with EventStore() as store:
        print("ready", flush=True)
        while True:
            await rebuild(store, select_projections(READ_TABLES))


_ROLES: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "subscribe": lambda: _subscribe(prints_events=True),
    "follow": lambda: _subscribe(prints_events=False),
    "listen": _listen,
    "rebuild": _rebuild,
}

if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_ROLES[sys.argv[1]]())
