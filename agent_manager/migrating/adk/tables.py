"""Reading google-adk's tables, in SQLite or PostgreSQL: each source in one snapshot, and never written to."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from agent_manager.migrating.source import SourceUnreadable
from eventstore.database.queries import query
from eventstore.errors import printable
from eventstore.urls import check_url, has_password_parameter, show_name

Row: TypeAlias = dict[str, Any]
_PACKAGE = "agent_manager.migrating.adk"


class Tables(Protocol):
    """An open database.

    Attributes:
        place: where the database is, without its login.
        tie: the column that orders events of the same time.
        sessions_in_utc: whether times of sessions are in UTC. In SQLite they are, by its own clock and by google-adk;
            in PostgreSQL they depend on the version of google-adk and on the server's time zone.
    """

    place: str
    tie: str
    sessions_in_utc: bool

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        """The rows that a statement gives; ``words`` are written into its text."""
        ...

    async def columns(self) -> list[Row]:
        """Of each of google-adk's tables."""
        ...

    async def close(self) -> None:
        """Ends reading."""
        ...


def json_value(value: Any) -> Any:
    """Return a JSON value: PostgreSQL has it as one, SQLite as a text."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return {"unreadable": str(value)}


async def open_tables(url: str) -> Tables:
    """Opens a database.

    Args:
        url: as google-adk takes it (``sqlite+aiosqlite:///sessions.db``, ``postgresql+asyncpg://…``), or the path of an
            SQLite file.

    Raises:
        SourceUnreadable: it cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if not separator:
        return await asyncio.to_thread(_Sqlite, Path(url))
    if kind == "sqlite":
        return await asyncio.to_thread(_Sqlite, Path(rest.partition("?")[0].removeprefix("/")))
    if kind in ("postgres", "postgresql"):
        return await _Postgresql.connected(check_url(f"postgresql://{rest}", "the URL of google-adk's sessions"))
    raise SourceUnreadable(
        "the URL of google-adk's sessions: names neither SQLite nor PostgreSQL: give sqlite:///FILE or postgresql://…"
    )


class _Sqlite:
    tie = "rowid"
    sessions_in_utc = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place = str(path.resolve())
        if not path.is_file():
            raise SourceUnreadable(f"{show_name(str(path))}: is no file: give the SQLite file of google-adk's sessions")
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro"
            self._connection = sqlite3.connect(address, uri=True, check_same_thread=False, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        text = re.sub(r"%\((\w+)\)s", r":\1", _text(name, words))
        return await asyncio.to_thread(self._fetch, text, given or {})

    async def columns(self) -> list[Row]:
        return await self.rows("columns_sqlite")

    async def close(self) -> None:
        self._connection.close()

    def _fetch(self, text: str, given: Row) -> list[Row]:
        try:
            return [dict(row) for row in self._connection.execute(text, given)]
        except sqlite3.Error as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: sqlite3.Error) -> SourceUnreadable:
        return SourceUnreadable(f"{show_name(str(self._path))}: {error}: give the SQLite file of google-adk's sessions")


class _Postgresql:
    tie = "id"
    sessions_in_utc = False

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        self._connection = connection
        self.place = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"

    @classmethod
    async def connected(cls, url: str) -> _Postgresql:
        url = re.sub(r"([?&])ssl=", r"\1sslmode=", url)  # asyncpg's word for it
        try:
            connection = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)
        except psycopg.Error as error:
            if isinstance(error, psycopg.ProgrammingError) and has_password_parameter(url):
                raise _refused("its parameters are not those of libpq") from None
            raise _refused(str(error)) from None
        await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await connection.set_read_only(True)
        return cls(connection)

    async def rows(self, name: str, given: Row | None = None, **words: str) -> list[Row]:
        try:
            return await (await self._connection.execute(_text(name, words).encode(), given)).fetchall()
        except psycopg.Error as error:
            raise _refused(str(error)) from None

    async def columns(self) -> list[Row]:
        return await self.rows("columns_postgresql")

    async def close(self) -> None:
        await self._connection.close()


def _text(name: str, words: Row) -> str:
    text = query(_PACKAGE, name)
    return text.format(**words) if words else text


def _refused(reason: str) -> SourceUnreadable:
    return SourceUnreadable(f"the database of google-adk's sessions: {printable(reason)}: correct the URL")
