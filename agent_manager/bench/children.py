"""Processes beside the benchmark's own: the workers of the projections, and listeners."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryFile
from typing import IO, Any

from eventstore import Settings
from eventstore.ending import end
from eventstore.errors import ServerError

_PROJECT = ("-c", "from agent_manager.cli import main; main()", "project")
_LISTEN = "import sys; from agent_manager.bench.listener import main; main(sys.argv[1])"
_REBUILD = "from agent_manager.bench.rebuilder import main; main()"
_START_SECONDS, _END_SECONDS = 60, 20


class Child:
    """A running process, whose lines can be read."""

    def __init__(self, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    async def line(self) -> str:
        """The next line that it prints.

        Raises:
            ServerError: it has ended, or says nothing for a minute.
        """
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _START_SECONDS)
        except TimeoutError:
            line = b""
        if not line:
            raise self._gone()
        return line.decode().rstrip("\n")

    async def runs_until(self, done: Coroutine[Any, Any, None]) -> None:
        """Waits for something that the process brings about.

        Raises:
            ServerError: the process ended before.
        """
        ended = asyncio.create_task(self._process.wait())
        waiting = asyncio.create_task(done)
        try:
            await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise self._gone()
            await waiting
        finally:
            await end((ended, waiting))

    async def stop(self) -> None:
        """Ends it, as Ctrl-C would."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(self._process.wait(), _END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def _gone(self) -> ServerError:
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
        return ServerError(f"a process beside the benchmark has ended or hangs; it said last: {last}")


@asynccontextmanager
async def workers(settings: Settings) -> AsyncIterator[Child]:
    """``eventstore project``, once it follows the log."""
    async with _running(settings, _PROJECT) as child:
        while "follow the log" not in await child.line():
            pass
        yield child


@asynccontextmanager
async def listening(settings: Settings, kind: str) -> AsyncIterator[Child]:
    """A listener of that kind, once it listens."""
    async with _running(settings, ("-c", _LISTEN, kind)) as child:
        while await child.line() != "ready":
            pass
        yield child


@asynccontextmanager
async def rebuilding(settings: Settings) -> AsyncIterator[Child]:
    """A process that rebuilds the read tables again and again, once it has begun."""
    async with _running(settings, ("-c", _REBUILD)) as child:
        await child.line()
        yield child


@asynccontextmanager
async def _running(settings: Settings, arguments: tuple[str, ...]) -> AsyncIterator[Child]:
    assert settings.database_url is not None
    environment = os.environ | {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "EVENTSTORE_SCHEMA": settings.db_schema,
        "EVENTSTORE_TENANT": settings.tenant,
    }
    with TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=said
        )
        child = Child(process, said)
        try:
            yield child
        finally:
            await child.stop()
