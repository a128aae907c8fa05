"""Custom projections: ``.sql`` files, or async Python functions over typed events.

The setting ``EVENTSTORE_PROJECTIONS`` names them (or the caller passes them to :class:`~projections.Worker` and other
functions of this package). They have checkpoints, parking, rebuilding and verification like the built-in ones. For that
they must be functions of the log alone: their rows must not depend on the time, on random numbers or on other tables.
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
from projections.projection import PROJECTIONS, Projection, UnprocessableEvent

Fold = Callable[[Connection, Sequence[Event]], Awaitable[None]]
"""Applies events, in the order of the log, over a connection with an open transaction, which it must not end."""

_BATCH_EVENTS = query("projections", "batch_events")
_LOCK_SETUP = query("projections", "lock_setup")
_ADOPT_TABLE = query("projections", "adopt_table")
_MISSING_TABLES = query("projections", "missing_tables")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,54}")
_HEADER = re.compile(r"^-- (projection|tables):\s*(.+?)\s*$", re.MULTILINE)
_SECTION = re.compile(r"^-- (setup|batch)[ \t]*\n(.*?)(?=^-- (?:setup|batch)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class PythonProjection(Projection):
    """A projection written in Python.

    Attributes:
        largest_batch: all its events are in memory at once.
        function: applies events.
    """

    largest_batch: int = 5_000
    function: Fold | None = None

    @cached_property
    def definition_hash(self) -> str:
        """SHA-256 of the module that defines the function."""
        assert self.function is not None
        try:
            text = inspect.getsource(inspect.getmodule(self.function) or self.function)
        except (OSError, TypeError):
            raise SettingsError(f"projection {self.name}: its source cannot be read: put it into a module") from None
        return hashlib.sha256(text.encode()).hexdigest()

    async def fold(self, connection: Connection) -> None:
        """Call the function with the events that the relation ``batch`` of the connection shows."""
        assert self.function is not None
        rows = await (await RawRows(connection).execute(_BATCH_EVENTS)).fetchall()
        if not rows:
            return
        try:
            await self.function(connection, [Event.from_row(row) for row in rows])
        except (psycopg.Error, EventStoreError, OSError):
            raise
        except Exception as error:
            raise UnprocessableEvent(f"{type(error).__name__}: {error}") from error


def projection(name: str, *tables: str, setup: str = "") -> Callable[[Fold], PythonProjection]:
    """Return a decorator that makes a projection of an async function.

    Args:
        tables: the tables that it alone writes; by default one with its name.
        setup: statements that create the tables.
    """
    _check_names(name, *tables)
    return lambda function: PythonProjection(name, tables or (name,), None, setup, function=function)


def from_file(path: Path) -> Projection:
    """Return the projection that a ``.sql`` file defines.

    The lines ``-- projection: NAME`` and ``-- tables: NAME, NAME`` name it and its tables; by default both have the
    name of the file. The statements that create the tables follow a line ``-- setup``, those that apply a batch follow
    a line ``-- batch``.

    Raises:
        SettingsError: the file cannot be read, or has no section ``-- batch``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {path}: {error}: correct the path") from None
    headers: dict[str, str] = dict(_HEADER.findall(text))
    name = headers.get("projection", path.stem)
    tables = tuple(table.strip() for table in headers.get("tables", name).split(","))
    _check_names(name, *tables)
    sections: dict[str, str] = dict(_SECTION.findall(text))
    if not sections.get("batch", "").strip():
        raise SettingsError(
            f"{path}: has no section '-- batch': put the statements that apply a batch after such a line"
        )
    return Projection(name, tables, sections["batch"], sections.get("setup", ""))


def load_projections(setting: str) -> tuple[Projection, ...]:
    """Return the built-in projections and those of a setting: ``.sql`` files and ``module:name``, comma-separated.

    Raises:
        SettingsError: a projection cannot be loaded, or two have the same name or a table in common.
    """
    projections = list(PROJECTIONS)
    for entry in filter(None, (entry.strip() for entry in setting.split(","))):
        loaded = from_file(Path(entry)) if entry.endswith(".sql") else _imported(entry)
        for other in projections:
            shared = {other.name} & {loaded.name} or set(other.tables) & set(loaded.tables)
            if shared:
                raise SettingsError(
                    f"EVENTSTORE_PROJECTIONS: {entry}: {shared.pop()} is taken by projection {other.name}"
                )
        projections.append(loaded)
    return tuple(projections)


def _imported(entry: str) -> Projection:
    module, colon, name = entry.partition(":")
    try:
        imported = getattr(import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {entry}: {error}") from None
    if not isinstance(imported, Projection):
        raise SettingsError(f"EVENTSTORE_PROJECTIONS: {entry}: expected a path that ends in .sql, or module:projection")
    return imported


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise SettingsError(
                f"{name!r} is not a name for a projection or its table: use lower-case letters, digits and _"
            )


async def create_missing_tables(store: EventStore, projections: Sequence[Projection]) -> None:
    """Create the missing tables of projections that have a setup, under the role of the login.

    Raises:
        EventStoreError: the login lacks the privilege, or the statements fail.
    """
    for projection in projections:
        if projection.setup:
            async with await store.connect(role=None) as connection:
                with translated():
                    async with connection.transaction():
                        await _set_up(connection, projection)


async def _set_up(connection: Connection, projection: Projection) -> None:
    tables = {"tables": list(projection.tables)}
    await connection.execute("SET LOCAL ROLE NONE")  # a pooler may have lent another client's session
    if not await (await connection.execute(_MISSING_TABLES, tables)).fetchall():
        return
    await connection.execute(_LOCK_SETUP)
    if not await (await connection.execute(_MISSING_TABLES, tables)).fetchall():  # created by another process meanwhile
        return
    await connection.execute(projection.setup.encode())
    missing = await (await connection.execute(_MISSING_TABLES, tables)).fetchall()
    if missing:
        raise SettingsError(f"projection {projection.name}: its setup does not create the table {missing[0][0]}")
    for table in projection.tables:
        await connection.execute(_ADOPT_TABLE, {"table": table})
