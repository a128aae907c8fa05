"""The server under check: a named one, or an embedded one of the check's own that may be killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import psycopg

from eventstore.check.address import named
from eventstore.database.connection import TCP_TIMEOUTS, unreachable
from eventstore.database.embedded import EmbeddedServer
from eventstore.database.settings import Settings
from eventstore.errors import EventStoreError, InputError
from eventstore.urls import show_url

Admin = psycopg.AsyncConnection[Any]

PREPARED = 20
"""Prepared transactions at once that the check's own server allows."""
_CONNECT_SECONDS = 5
_POLL_SECONDS = 0.1
_SECONDS_TO_COME_BACK = 120


class CheckedServer(ABC):
    """A server, and how to kill it.

    Attributes:
        url: of the database.
        can_be_killed: whether :meth:`kill` may be called.
        host, port: where it is, known once it is open.
        version: such as ``18.6``.
        allows_prepared: whether it takes prepared transactions.
    """

    url: str
    can_be_killed: bool

    def __init__(self, run: str) -> None:
        self._run = run
        self.host, self.port, self.version, self.allows_prepared = "", 0, "", False

    async def open(self) -> None:
        """Looks at it.

        Raises:
            EventStoreError: it cannot be used.
        """
        async with await self.connect("checker") as connection:
            info = connection.info
            self.host, self.port = info.host, info.port
            major, minor = divmod(info.server_version, 10000)
            self.version = f"{major}.{minor}"
            row = await (await connection.execute("SHOW max_prepared_transactions")).fetchone()
            self.allows_prepared = row is not None and int(row[0]) > 0

    @abstractmethod
    async def kill(self) -> None:
        """Kills it, and returns when it has recovered."""

    async def close(self, *, keep: bool) -> None:  # noqa: B027 - there is nothing to leave of a named server
        """Leaves it; one of the check's own is removed, unless it is to be kept."""

    @property
    def title(self) -> str:
        """For the report."""
        return show_url(self.url)

    def application_name(self, purpose: str) -> str:
        """By which the check's own sessions are known to the server."""
        return f"{self._run}_{purpose}"

    async def connect(self, purpose: str) -> Admin:
        """A connection of the checker's own, in autocommit mode.

        Raises:
            EventStoreError: nobody answers.
        """
        url = named(self.url, self.application_name(purpose))
        try:
            return await psycopg.AsyncConnection.connect(
                url, autocommit=True, connect_timeout=_CONNECT_SECONDS, **TCP_TIMEOUTS
            )
        except psycopg.Error as error:
            raise unreachable(self.url, error) from error

    async def until_it_answers(self) -> None:
        """Returns when it takes connections again.

        Raises:
            EventStoreError: it does not come back.
        """
        deadline = asyncio.get_running_loop().time() + _SECONDS_TO_COME_BACK
        while True:
            try:
                connection = await self.connect("checker")
            except EventStoreError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            else:
                await connection.close()
                return


class NamedServer(CheckedServer):
    """Somebody's server: killed only by a command that was given for it."""

    def __init__(self, run: str, url: str, restart_command: str | None) -> None:
        super().__init__(run)
        self.url = url
        self._command = restart_command
        self.can_be_killed = restart_command is not None

    async def kill(self) -> None:
        """Runs the command."""
        process = await asyncio.create_subprocess_shell(
            self._command or "", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if code := await process.wait():
            raise InputError(f"--restart-command ended with {code}: correct it, or leave it out")
        await self.until_it_answers()


class OwnServer(CheckedServer):
    """An embedded server on data of the check's own, so that no other use of an embedded server is disturbed."""

    can_be_killed = True

    def __init__(self, run: str, folder: Path) -> None:
        super().__init__(run)
        self._embedded = EmbeddedServer(folder / "server")

    async def open(self) -> None:
        """Starts it, with prepared transactions allowed."""
        await asyncio.to_thread(self._start)
        await super().open()

    @property
    def title(self) -> str:
        """For the report."""
        return "embedded, the check's own"

    def _start(self) -> None:
        self._embedded.acquire()
        try:
            self.url = self._embedded.url()
            with psycopg.connect(self._embedded.superuser_url, autocommit=True) as superuser:
                superuser.execute(f"ALTER SYSTEM SET max_prepared_transactions = {PREPARED}")
            # It takes effect at the next start.
            self._embedded.release()
            self._embedded.acquire()
        except BaseException:
            self._embedded.release()
            raise

    async def kill(self) -> None:
        """SIGKILL to the postmaster; it is started again as every user of an embedded server would."""
        pid = self._embedded.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._embedded.ensure_running)
        await self.until_it_answers()

    async def close(self, *, keep: bool) -> None:
        """Stops it."""
        await asyncio.to_thread(self._embedded.release)
        if not keep:
            await asyncio.to_thread(shutil.rmtree, self._embedded.data_dir, ignore_errors=True)


def server_of(settings: Settings, run: str, folder: Path, restart_command: str | None) -> CheckedServer:
    """The server that the settings name, or an embedded one in the folder."""
    url = settings.server_url()
    return OwnServer(run, folder) if url is None else NamedServer(run, url, restart_command)
