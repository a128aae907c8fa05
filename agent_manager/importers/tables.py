"""The tables of an agent framework, in SQLite or PostgreSQL: read in one snapshot, and never written."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg
from psycopg.rows import dict_row

from agent_manager.a2a import Json
from agent_manager.importers.source import Source, SourceUnreadable
from eventstore.database.queries import query
from eventstore.errors import printable
from eventstore.urls import check_url, has_password_parameter, show_name


@dataclass(frozen=True, slots=True)
class Tables:
    """An open database; close it with ``aclose``.

    Attributes:
        place: where the database is, without its login.
        is_sqlite: whether it is SQLite, not PostgreSQL.
    """

    place: str
    is_sqlite: bool
    fetch: Callable[[str, Json], Awaitable[list[Json]]]
    aclose: Callable[[], Awaitable[None]]

    async def rows(self, name: str, parameters: Json | None = None, **fragments: str) -> list[Json]:
        """Return the rows of a query; fragments replace their names in its text."""
        text = query("agent_manager.importers", name)
        return await self.fetch(text.format(**fragments) if fragments else text, parameters or {})

    async def columns(self, tables: Iterable[str]) -> dict[str, set[str]]:
        """Return the columns of those of these tables that exist."""
        columns: dict[str, set[str]] = {}
        name = "columns_sqlite" if self.is_sqlite else "columns_postgresql"
        for row in await self.rows(name, tables=", ".join(f"'{table}'" for table in tables)):
            columns.setdefault(row["table_name"], set()).add(row["column_name"])
        return columns


class TableSource(Source):
    """A source that consists of a framework's tables.

    Args:
        url: see :func:`open_tables`.
        content: what its tables hold, for errors.
    """

    def __init__(self, url: str, framework: str, content: str) -> None:
        self.name = framework
        self._url, self._content = url, content
        self._opened: Tables | None = None

    async def __aenter__(self) -> Self:
        self._opened = await open_tables(self._url, self._content)
        self.name += f" in {self.tables.place}"
        try:
            await self.check_tables()
        except BaseException:
            await self.tables.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tables.aclose()

    async def check_tables(self) -> None:
        """Raise SourceUnreadable if the tables are not the framework's."""

    @property
    def tables(self) -> Tables:
        """The open tables."""
        if self._opened is None:
            raise SourceUnreadable("the source is not open: use 'async with'")
        return self._opened


async def open_tables(url: str, content: str) -> Tables:
    """Open a database.

    Args:
        url: in SQLAlchemy's form (``sqlite+aiosqlite:///sessions.db``, ``postgresql+asyncpg://…``), or the path of an
            SQLite file.

    Raises:
        SourceUnreadable: it cannot be opened.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if not separator:
        return await asyncio.to_thread(_open_sqlite, Path(url), content)
    if kind == "sqlite":
        path = Path(rest.partition("?")[0].removeprefix("/"))
        return await asyncio.to_thread(_open_sqlite, path, content)
    if kind in ("postgres", "postgresql"):
        return await open_postgresql(check_url(f"postgresql://{rest}", f"the URL of {content}"), content)
    raise SourceUnreadable(
        f"the URL of {content}: names neither SQLite nor PostgreSQL: give sqlite:///FILE or postgresql://…"
    )


def _open_sqlite(path: Path, content: str) -> Tables:
    def unreadable(reason: object) -> SourceUnreadable:
        return SourceUnreadable(f"{show_name(str(path))}: {reason}: give the SQLite file of {content}")

    async def fetch(sql: str, parameters: Json) -> list[Json]:
        named = re.sub(r"%\((\w+)\)s", r":\1", sql)
        try:
            rows = await asyncio.to_thread(lambda: connection.execute(named, parameters).fetchall())
        except sqlite3.Error as error:
            raise unreadable(error) from None
        return [dict(row) for row in rows]

    if not path.is_file():
        raise unreadable("is not a file")
    try:
        uri = f"file:{quote(str(path.absolute()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
    except sqlite3.Error as error:
        raise unreadable(error) from None
    return Tables(str(path.resolve()), True, fetch, partial(asyncio.to_thread, connection.close))


async def open_postgresql(url: str, content: str) -> Tables:
    """Open a database of PostgreSQL. Raise SourceUnreadable if it cannot be opened."""

    def unreadable(reason: str) -> SourceUnreadable:
        return SourceUnreadable(f"the database of {content}: {printable(reason)}: correct the URL")

    async def fetch(sql: str, parameters: Json) -> list[Json]:
        try:
            return await (await connection.execute(sql.encode(), parameters)).fetchall()
        except psycopg.Error as error:
            raise unreadable(str(error)) from None

    url = re.sub(r"([?&])ssl=", r"\1sslmode=", url)  # asyncpg's name for it
    try:
        connection = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)
    except psycopg.Error as error:
        if isinstance(error, psycopg.ProgrammingError) and has_password_parameter(url):
            raise unreadable("its parameters are not those of libpq") from None
        raise unreadable(str(error)) from None
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await connection.set_read_only(True)
    place = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    return Tables(place, False, fetch, connection.close)
