"""The server that the settings name, or the embedded server, which runs while it is used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, DiskFull, EventStoreError, ServerUnreachable
from eventstore.settings import DEFAULT_DATABASE, Settings
from eventstore.urls import show_url

if TYPE_CHECKING:
    from eventstore.database.embedded.embedded_server import EmbeddedServer

FULL_DISK_BYTES = 32 * 1024 * 1024  # two segments of the write-ahead log: the server stops with less


class Server:
    """The server of a store. Release it when done: the last user of the embedded server stops it.

    :meth:`acquire` starts the embedded server and, if ``migrate`` is true, applies its missing migrations, unless
    they were reverted on request.

    Attributes:
        applied: the migrations that were applied.
        stopping: set from any thread, it ends a migration that waits for another process.
    """

    def __init__(self, settings: Settings, *, migrate: bool = True) -> None:
        self.settings = settings
        self._migrate = migrate
        self.applied: list[str] = []
        self.stopping = threading.Event()
        self.embedded: EmbeddedServer | None = None
        self._url = settings.server_url()
        if self._url is None:
            # Imported here: with a named server, neither the embedded server nor its packages are needed.
            from eventstore.database.embedded.embedded_server import EmbeddedServer

            self.embedded = EmbeddedServer(settings.data_dir, pg_port=settings.pg_port, database=DEFAULT_DATABASE)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Start or join the embedded server."""
        if self.embedded is not None:
            self.embedded.acquire()
            try:
                if self._migrate:
                    self.applied = self.migrator().up(for_service=True)
            except BaseException:
                self.embedded.release()
                raise

    def release(self) -> None:
        """Leave the embedded server."""
        if self.embedded is not None:
            self.embedded.release()

    def ensure_running(self) -> None:
        """Restart the embedded server if it has died."""
        if self.embedded is not None:
            self.embedded.ensure_running()

    @property
    def url(self) -> str:
        """The URL for libpq and psycopg; with the password if the settings have one."""
        if self._url:
            return self._url
        assert self.embedded is not None
        return self.embedded.url()

    @property
    def public_url(self) -> str:
        """The URL for display, without a password."""
        return show_url(self.url)

    def migrator(self) -> Migrator:
        """Return a migrator for this server's schema."""
        return Migrator(self.url, self.settings, self.stopping)

    def likely_cause(self, error: EventStoreError) -> EventStoreError:
        """Return the likely cause of a lost connection: an embedded server stops if its disk is full."""
        if self.embedded is not None and isinstance(error, ConnectionLost | ServerUnreachable):
            from eventstore.database.embedded.embedded_server import free_space

            data_dir = self.embedded.data_dir
            if free_space(data_dir) < FULL_DISK_BYTES:
                return DiskFull(f"the disk that holds {data_dir} is full: make room, then repeat the call; {error}")
        return error
