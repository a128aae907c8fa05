"""The tables of a stage: made beside the live ones, given what those have, swapped with them, dropped.

What is done stands in functions of the database (migration ``shadow_tables``); this is how they are called: by the
login itself, who must own the tables.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from psycopg import errors

from eventstore import EventStore
from eventstore.database.connection import Connection
from eventstore.database.queries import query
from eventstore.database.translate import translated
from eventstore.errors import RebuildError
from projections.apply import Stage
from projections.projection import Projection

LOCK_MS = 50
"""How long a swap waits for its locks, with new readers behind it, until it gives way and tries again."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0

_OBSTACLES = query("projections", "obstacles")
_LOCK_REBUILD = query("projections", "lock_rebuild")
_MAKE_NEXT = query("projections", "make_next")
_MISSING = query("projections", "missing")
_DROP = query("projections", "drop_stage")
_STAGES = query("projections", "stages")
_STAGE_PATH = query("projections", "stage_path")
_LOCK_LIVE = query("projections", "lock_live")
_SWAP = query("projections", "swap")
_BEHIND = query("projections", "behind")
_MARK = query("projections", "mark_transactions")
_OLDER = query("projections", "older_transactions")


class _NotYet(Exception):
    """The tables are not up with the live ones at this moment."""


class Shadows:
    """The stages of one projection, over one connection of the login's."""

    def __init__(self, connection: Connection, projection: Projection) -> None:
        self.connection = connection
        self._projection = projection
        self._names = {"projection": projection.name, "tables": list(projection.tables)}

    @classmethod
    async def open(cls, store: EventStore, projection: Projection) -> Shadows:
        """Connects, and makes sure that nobody else works on the stages of the projection. Close it when done.

        Raises:
            RebuildError: somebody else does; or something stands in the way of a swap.
        """
        connection = await store.connect(role=None)
        try:
            shadows = cls(connection, projection)
            with translated():
                await connection.execute("SET client_min_messages = warning")
                row = await (await connection.execute(_LOCK_REBUILD, shadows._names)).fetchone()
                if not row or not row[0]:
                    raise RebuildError(
                        f"projection {projection.name} is being rebuilt or taken back by another process: wait"
                    )
                found = await (await connection.execute(_OBSTACLES, shadows._names)).fetchall()
            if found:
                raise RebuildError(f"projection {projection.name} cannot be rebuilt: {'; '.join(o for (o,) in found)}")
        except BaseException:
            await connection.close()
            raise
        return shadows

    async def close(self) -> None:
        """Closes the connection."""
        await self.connection.close()

    async def sources(self) -> dict[str, str]:
        """What the tables of each stage that there is are made by."""
        with translated():
            rows = await (await self.connection.execute(_STAGES, self._names)).fetchall()
        return dict(rows)

    async def make_next(self) -> None:
        """Makes empty tables in the place of those that an earlier rebuild left unfinished."""
        parameters = self._names | {"source": self._projection.source, "text": self._projection.text}
        with translated():
            async with self.connection.transaction():
                await self.connection.execute(_DROP, self._names | {"stage": "next"})
                await self.connection.execute(_MAKE_NEXT, parameters)
                if self._projection.needs_keys:
                    await self._add_missing(lambda _: None, only_keys=True)

    async def complete_next(self, tell: Callable[[str], None]) -> None:
        """Gives the next tables the indexes, keys, triggers and policies that the live ones have and they lack yet."""
        with translated():
            await self.connection.execute("SET maintenance_work_mem = '256MB'")
            await self._add_missing(tell)
            for table in self._projection.tables:
                async with self.connection.transaction():
                    await self.connection.execute(_STAGE_PATH, {"stage": "next"})
                    await self.connection.execute(f'ANALYZE "{table}"'.encode())

    async def _add_missing(self, tell: Callable[[str], None], *, only_keys: bool = False) -> None:
        missing = await (await self.connection.execute(_MISSING, self._names)).fetchall()
        for what, statement, is_key in missing:
            if only_keys and not is_key:
                continue
            tell(what)
            async with self.connection.transaction():
                await self.connection.execute(_STAGE_PATH, {"stage": "next"})
                await self.connection.execute(statement.encode())

    async def outlive_older(self, work: Callable[[], Awaitable[None]], tell: Callable[[str], None]) -> None:
        """Returns when every transaction has ended whose snapshot does not show the new tables full.

        Args:
            work: what to do again and again meanwhile.
        """
        with translated():
            mark = await (await self.connection.execute(_MARK)).fetchone()
            assert mark is not None
            pause = _FIRST_PAUSE
            while True:
                older = await (await self.connection.execute(_OLDER, {"mark": mark[0], "running": mark[1]})).fetchall()
                if not older:
                    return
                tell(f"waiting for the transaction of process {older[0][0]}")
                await work()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def swap(self, stage: Stage, catch_up: Callable[[], Awaitable[None]]) -> None:
        """Puts the tables of a stage in the place of the live ones.

        Args:
            catch_up: brings the stage up with the log; called while nobody follows the live tables, so that no reader
                sees them go back.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self.connection.transaction():
                    # Workers stop here; readers do not feel it.
                    await self.connection.execute("SET LOCAL lock_timeout = '30s'")
                    await self.connection.execute(_LOCK_LIVE, self._names)
                    await catch_up()
                    if await (await self.connection.execute(_BEHIND, self._names | {"stage": stage})).fetchall():
                        raise _NotYet  # the horizon is not monotone
                    if stage == "next":
                        await self.connection.execute(_DROP, self._names | {"stage": "previous"})
                    await self.connection.execute(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'".encode())
                    await self.connection.execute(_SWAP, self._names | {"stage": stage})
                return
            except (errors.LockNotAvailable, _NotYet):
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # two must not keep step
                pause = min(pause * 2, _LONGEST_PAUSE)
