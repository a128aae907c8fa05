"""The server under check: a configured one, or an embedded one of the check's own, which may be killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventstore import Settings
from eventstore.database.connection import TCP_TIMEOUTS, unreachable
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.errors import EventStoreError, InputError
from eventstore.urls import show_url
from tools.checker.proxy import Proxy

_MAX_PREPARED_TRANSACTIONS = 20
_CONNECT_SECONDS = 5
_POLL_SECONDS = 0.1
_RECOVERY_SECONDS = 120
_AUTHORITY = ("user", "password", "dbname")


class CheckedServer(ABC):
    """A server, and how to kill it.

    Attributes:
        url: URL of the database.
        can_be_killed: whether :meth:`kill` may be called.
        host, port: its address, known once it is open.
        version: for example ``18.6``.
        allows_prepared: whether it accepts prepared transactions.
    """

    url: str
    can_be_killed: bool

    def __init__(self, run: str) -> None:
        self._run = run
        self.host, self.port, self.version, self.allows_prepared = "", 0, "", False

    async def open(self) -> None:
        """Connect, and find out address, version and abilities.

        Raises:
            EventStoreError: the server cannot be used.
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
        """Kill the server, and return when it has recovered."""

    async def close(self, *, keep: bool) -> None:  # noqa: B027 - nothing to do for a configured server
        """Leave the server; remove one of the check's own, unless it is to be kept."""

    @property
    def title(self) -> str:
        """The server's name in the report."""
        return show_url(self.url)

    def application_name(self, purpose: str) -> str:
        """Return the application name of the check's own sessions for a purpose."""
        return f"{self._run}_{purpose}"

    async def connect(self, purpose: str) -> psycopg.AsyncConnection[Any]:
        """Open a connection of the checker's own, in autocommit mode.

        Raises:
            EventStoreError: the server does not answer.
        """
        url = url_with_name(self.url, self.application_name(purpose))
        try:
            return await psycopg.AsyncConnection.connect(
                url, autocommit=True, connect_timeout=_CONNECT_SECONDS, **TCP_TIMEOUTS
            )
        except psycopg.Error as error:
            raise unreachable(self.url, error) from error

    async def until_it_answers(self) -> None:
        """Wait until the server accepts connections again.

        Raises:
            EventStoreError: it does not recover in time.
        """
        deadline = asyncio.get_running_loop().time() + _RECOVERY_SECONDS
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


class ConfiguredServer(CheckedServer):
    """A server that the settings name; only a given command kills it."""

    def __init__(self, run: str, url: str, restart_command: str | None) -> None:
        super().__init__(run)
        self.url = url
        self._command = restart_command
        self.can_be_killed = restart_command is not None

    async def kill(self) -> None:
        """Run the command."""
        process = await asyncio.create_subprocess_shell(
            self._command or "", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if code := await process.wait():
            raise InputError(f"--restart-command ended with {code}: correct it, or leave it out")
        await self.until_it_answers()


class OwnServer(CheckedServer):
    """An embedded server on data of the check's own, so that other users of an embedded server are not disturbed."""

    can_be_killed = True

    def __init__(self, run: str, folder: Path) -> None:
        super().__init__(run)
        self._embedded = EmbeddedServer(folder / "server")

    async def open(self) -> None:
        """Start the server, with prepared transactions enabled."""
        await asyncio.to_thread(self._start)
        await super().open()

    @property
    def title(self) -> str:
        """The server's name in the report."""
        return "embedded, the check's own"

    def _start(self) -> None:
        self._embedded.acquire()
        try:
            self.url = self._embedded.url()
            with psycopg.connect(self._embedded.superuser_url, autocommit=True) as superuser:
                superuser.execute(f"ALTER SYSTEM SET max_prepared_transactions = {_MAX_PREPARED_TRANSACTIONS}")
            # The setting takes effect at the next start.
            self._embedded.release()
            self._embedded.acquire()
        except BaseException:
            self._embedded.release()
            raise

    async def kill(self) -> None:
        """Send SIGKILL to the postmaster, and restart it as every user of an embedded server would."""
        pid = self._embedded.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._embedded.ensure_running)
        await self.until_it_answers()

    async def close(self, *, keep: bool) -> None:
        """Stop the server."""
        await asyncio.to_thread(self._embedded.release)
        if not keep:
            await asyncio.to_thread(shutil.rmtree, self._embedded.data_dir, ignore_errors=True)


def server_of(settings: Settings, run: str, folder: Path, restart_command: str | None) -> CheckedServer:
    """Return the server that the settings name, or an embedded one in the folder."""
    url = settings.server_url()
    return OwnServer(run, folder) if url is None else ConfiguredServer(run, url, restart_command)


def url_with_name(url: str, application_name: str) -> str:
    """Return the URL with an application name for the sessions."""
    return _join(_split(url) | {"application_name": application_name})


def url_via_proxy(url: str, proxy: Proxy, host: str) -> str:
    """Return the URL of the same server through a proxy.

    Args:
        host: host of the server; a certificate is still checked against it.
    """
    parts = _split(url) | {"port": str(proxy.port)}
    if host.startswith("/"):
        return _join(parts | {"host": proxy.host})
    return _join(parts | {"host": host, "hostaddr": proxy.host})


def _split(url: str) -> dict[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}


def _join(parts: dict[str, str]) -> str:
    user, password, database = (quote(parts.get(name, ""), safe="") for name in _AUTHORITY)
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    options = {name: value for name, value in parts.items() if name not in _AUTHORITY}
    return f"postgresql://{login}/{database}?{urlencode(options, quote_via=quote)}"
