"""Custom projections: a .sql file, or an async Python function over typed events.

They are named by the setting ``EVENTSTORE_PROJECTIONS`` (or given to :class:`~projections.Worker` and its like) and
have checkpoints, parking, rebuilding and verifying like the built-in ones. For that they must be functions of the log
alone: of the time, of chance, or of other tables nothing may come into their rows.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

import psycopg

from eventstore import Event, EventStore
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.errors import EventStoreError, SettingsError, translated
from eventstore.read import RawRows
from projections.parking import UnprocessableEvent
from projections.projection import PROJECTIONS, Projection

Fold = Callable[[Connection, Sequence[Event]], Awaitable[None]]
"""Applies events, in the order of the log, over a connection that is in a transaction; it must not end that."""

_EVENTS = query("projections", "batch_events")
_ADOPT = query("projections", "adopt_table")
_MISSING = query("projections", "missing_tables")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,54}")
_HEADER = re.compile(r"^-- (projection|tables):\s*(.+?)\s*$", re.MULTILINE)
_SECTION = re.compile(r"^-- (setup|batch)[ \t]*\n(.*?)(?=^-- (?:setup|batch)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class PythonProjection(Projection):
    """A projection written in Python.

    Attributes:
        function: applies events.
    """

    function: Fold | None = None

    @cached_property
    def text(self) -> str | None:
        """None: there are no statements."""
        return None

    @property
    def largest_batch(self) -> int:
        """Events that are handed over at a time: all of them are held in memory."""
        return 5_000

    @property
    def needs_keys(self) -> bool:
        """Always: nobody knows what it says to the server."""
        return True

    @cached_property
    def source(self) -> str:
        """SHA-256 of the module that the function stands in."""
        assert self.function is not None
        try:
            text = inspect.getsource(inspect.getmodule(self.function) or self.function)
        except (OSError, TypeError):
            raise SettingsError(f"projection {self.name}: its source cannot be read: put it into a module") from None
        return hashlib.sha256(text.encode()).hexdigest()

    async def fold(self, connection: Connection) -> None:
        """Calls the function with what the relation ``batch`` of the connection shows."""
        assert self.function is not None
        rows = await (await RawRows(connection).execute(_EVENTS)).fetchall()
        if not rows:
            return
        try:
            await self.function(connection, [Event.from_row(row) for row in rows])
        except (psycopg.Error, EventStoreError, OSError):
            raise
        except Exception as error:
            raise UnprocessableEvent(f"{type(error).__name__}: {error}") from error


def projection(name: str, *tables: str, setup: str = "") -> Callable[[Fold], PythonProjection]:
    """Makes a projection of an async function.

    Args:
        name: of the projection.
        tables: that it alone writes; one of its own name if left out.
        setup: statements that make the tables.
    """

    def of(function: Fold) -> PythonProjection:
        _check_names(name, tables or (name,))
        return PythonProjection(name, tables or (name,), None, setup, function=function)

    return of


def from_file(path: Path) -> Projection:
    """The projection of a ``.sql`` file.

    The file says ``-- projection: NAME`` and ``-- tables: NAME, NAME``, each by default the name of the file; after a
    line ``-- setup`` stand the statements that make the tables, after ``-- batch`` those that apply a batch.

    Raises:
        SettingsError: it cannot be read, or has no such section.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {path}: {error}: correct the path") from None
    headers: dict[str, str] = dict(_HEADER.findall(text))
    name = headers.get("projection", path.stem)
    tables = tuple(table.strip() for table in headers.get("tables", name).split(","))
    _check_names(name, tables)
    sections: dict[str, str] = dict(_SECTION.findall(text))
    if not sections.get("batch", "").strip():
        raise SettingsError(
            f"{path}: has no section '-- batch': put the statements that apply a batch after such a line"
        )
    return Projection(name, tables, sections["batch"], sections.get("setup", ""))


def load(named: str) -> tuple[Projection, ...]:
    """The built-in projections and those that the setting names, separated by commas: ``.sql`` files, ``module:name``.

    Raises:
        SettingsError: one of them cannot be had, or a name or a table stands twice.
    """
    found = list(PROJECTIONS)
    for word in filter(None, (word.strip() for word in named.split(","))):
        one = from_file(Path(word)) if word.endswith(".sql") else _imported(word)
        for other in found:
            shared = {other.name} & {one.name} or set(other.tables) & set(one.tables)
            if shared:
                raise SettingsError(
                    f"EVENTSTORE_PROJECTIONS: {word}: {shared.pop()} is taken by projection {other.name}"
                )
        found.append(one)
    return tuple(found)


async def prepare(store: EventStore, projections: Sequence[Projection]) -> None:
    """Makes the tables that projections bring along, as the login itself.

    Raises:
        EventStoreError: it may not, or the statements fail.
    """
    for one in projections:
        if not one.setup:
            continue
        connection = await store.connect(role=None)
        try:
            with translated():
                tables = {"tables": list(one.tables)}
                async with connection.transaction():
                    await connection.execute("SET LOCAL ROLE NONE")  # a pooler may have lent a session of another
                    if not await (await connection.execute(_MISSING, tables)).fetchall():
                        continue
                    await connection.execute(one.setup.encode())
                    missing = await (await connection.execute(_MISSING, tables)).fetchall()
                    if missing:
                        raise SettingsError(f"projection {one.name}: its setup does not make the table {missing[0][0]}")
                    for table in one.tables:
                        await connection.execute(_ADOPT, {"table": table})
        finally:
            await connection.close()


def _imported(word: str) -> Projection:
    module, colon, name = word.partition(":")
    try:
        one = getattr(import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {word}: {error}") from None
    if not isinstance(one, Projection):
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {word}: expected a path that ends in .sql, or module:projection")
    return one


def _check_names(name: str, tables: Sequence[str]) -> None:
    for word in (name, *tables):
        if not _NAME.fullmatch(word):
            raise SettingsError(f"{word!r} is no name for a projection or its table: lower-case letters, digits and _")
