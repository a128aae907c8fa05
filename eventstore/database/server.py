"""The server that the settings name, or the embedded one, joined for as long as it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from eventstore.database.migrate import Migrator
from eventstore.database.settings import DEFAULT_DATABASE, Settings
from eventstore.errors import ConnectionLost, DiskFull, EventStoreError, ServerUnreachable
from eventstore.urls import show_url

if TYPE_CHECKING:
    from eventstore.database.embedded.embedded_server import EmbeddedServer

_NO_ROOM = 32 * 1024 * 1024  # two segments of the write-ahead log: with less the server stops


class Server:
    """A server in use. Release it when done: the last user of the embedded server stops it."""

    def __init__(self, settings: Settings, *, migrate: bool = True) -> None:
        """Starts nothing yet.

        Args:
            migrate: bring the schema of the embedded server up to date, which nobody else would.
        """
        self.settings = settings
        self._migrate = migrate
        self.applied: list[str] = []
        self.embedded: EmbeddedServer | None = None
        named = settings.server_url()
        if named is None:
            # Imported here: an application with a server of its own needs neither the embedded one nor its packages.
            from eventstore.database.embedded.embedded_server import EmbeddedServer

            self.embedded = EmbeddedServer(settings.data_dir, pg_port=settings.pg_port, database=DEFAULT_DATABASE)
        self._url = named

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Starts or joins the embedded server.

        Raises:
            EmbeddedServerError, DiskFull: it cannot be started.
            SchemaError: its schema is newer than the code, or a migration failed.
        """
        if self.embedded is not None:
            self.embedded.acquire()
            try:
                if self._migrate:
                    self.applied = self.migrator().up()
            except BaseException:
                self.embedded.release()
                raise

    def release(self) -> None:
        """Leaves the embedded server."""
        if self.embedded is not None:
            self.embedded.release()

    def revive(self) -> None:
        """Starts the embedded server again if it died.

        Raises:
            EmbeddedServerError, DiskFull: it cannot be started.
        """
        if self.embedded is not None:
            self.embedded.ensure_running()

    @property
    def url(self) -> str:
        """Where to connect, for libpq and psycopg; with the password if the settings have one."""
        return self._url or self._embedded_url()

    def _embedded_url(self) -> str:
        assert self.embedded is not None  # one of the two is always there
        return self.embedded.url()

    @property
    def public_url(self) -> str:
        """The URL without a password, to be shown."""
        return show_url(self.url)

    def migrator(self) -> Migrator:
        """For this server's schema."""
        return Migrator(self.url, self.settings)

    def why(self, error: EventStoreError) -> EventStoreError:
        """The likelier error behind a lost connection: an embedded server without room stops."""
        if self.embedded is not None and isinstance(error, ConnectionLost | ServerUnreachable):
            from eventstore.database.embedded.embedded_server import free_space

            data_dir = self.embedded.data_dir
            if free_space(data_dir) < _NO_ROOM:
                return DiskFull(f"the disk that holds {data_dir} is full: make room, then repeat the call; {error}")
        return error
