"""Rebuilds of read tables that this server runs: one for each projection at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from eventstore import EventStore
from eventstore.administration import Administrator, act_as, administrator, record_act
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.database.connection import APP
from eventstore.errors import ConflictError, EventStoreError, NotFound, translated
from projections import Projection, RebuildProgress, load_projections, rebuild, undo_rebuild

_log = logging.getLogger(__name__)

RebuildState: TypeAlias = Literal["running", "paused", "done", "restored", "failed"]


@dataclass
class Rebuild:
    """A rebuild, or the restoring of the tables before it.

    Attributes:
        doing, position, goal: See :class:`projections.RebuildProgress`.
        detail: Why it failed, or how many conversations differ.
    """

    projection: str
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended_at: datetime | None = None
    state: RebuildState = "running"
    doing: str = ""
    position: int = 0
    goal: int = 0
    detail: str = ""


class Rebuilds:
    """The rebuilds of a server, by projection: the running ones, and the last of each that has ended.

    A rebuild that is paused keeps what it has filled: the next one continues it, in this process or another.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.latest: dict[str, Rebuild] = {}

    def projections(self) -> dict[str, Projection]:
        """Return the projections of the store by name."""
        return {each.name: each for each in load_projections(self._store.settings.projections)}

    def start(self, name: str, *, is_undo: bool = False) -> None:
        """Start or continue the rebuild of a projection, or restore the tables that the last one has replaced.

        Raises:
            NotFound: There is no such projection.
            ConflictError: One is running already.
        """
        projection = self.projections().get(name)
        if projection is None:
            raise NotFound(f"there is no projection {name!r}: eventstore status lists them")
        if (task := self._tasks.get(name)) is not None and not task.done():
            raise ConflictError(f"projection {name} is being rebuilt already: wait until it has ended, or pause it")
        self.latest[name] = state = Rebuild(name)
        self._tasks[name] = independent_task(self._run(projection, state, administrator(), is_undo=is_undo))

    async def pause(self, name: str) -> None:
        """Stop a rebuild; the next one continues it.

        Raises:
            ConflictError: None is running here.
        """
        task = self._tasks.get(name)
        if task is None or task.done():
            raise ConflictError(f"this server is not rebuilding {name}: there is nothing to pause")
        await cancel_and_wait([task])
        async with await self._store.connect(APP) as connection:
            with translated():
                await record_act(connection, None, "rebuild_paused", {"projection": name})

    async def close(self) -> None:
        """Stop all rebuilds."""
        await cancel_and_wait(self._tasks.values())

    async def _run(self, projection: Projection, state: Rebuild, acting: Administrator, *, is_undo: bool) -> None:
        def note(progress: RebuildProgress) -> None:
            state.doing, state.position, state.goal = progress.doing, progress.position, progress.goal

        act_as(acting)
        try:
            if is_undo:
                await undo_rebuild(self._store, [projection])
                state.state = "restored"
            else:
                [done] = await rebuild(self._store, [projection], on_progress=note)
                state.state, state.position = "done", done.position
                state.detail = "; ".join(str(each) for each in done.differences[:5])
        except asyncio.CancelledError:
            state.state = "paused"
            raise
        except EventStoreError as error:
            state.state, state.detail = "failed", str(error)
        except Exception:
            state.state, state.detail = "failed", "internal error: see the server's log"
            fields = {"event": "rebuild_failed", "projection": projection.name}
            _log.exception("rebuilding %s", projection.name, extra=fields)
        finally:
            state.ended_at = datetime.now(UTC)
