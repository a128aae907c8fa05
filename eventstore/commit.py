"""Group commit: appends that come while others are under way travel together, in one statement and one transaction.

A durable commit costs one flush however much it carries, and a statement of many events costs little more than one of
a few. So an append goes out at once where a lane is free, and waits for the next departure where none is. Within a
group each append is taken or refused by itself (the function ``append_group`` says which), whatever becomes of the
others, and whosever they are.

- A conversation under way is not sent on another lane: it would find its own lock taken. Its appends wait.
- A conversation that somebody else holds is set aside (the server only tries its lock) and sent again by itself, on a
  lane of its own, with patience; the others go on.
- A statement that fails for a reason which is no outcome (a full disk, a row too long for an index) has written
  nothing. If it carried several appends, each is sent again by itself and meets its own fate.
- A connection lost on the way leaves it unknown what happened. The appends are sent again under the same ids, which
  is harmless; where that fails too, the callers are told.
- A pooler in transaction mode may lend a lane a session in which another part of a store has taken its role, which may
  not append. Then nothing was written, and the appends are sent again; from then on each says its role in its own
  transaction, which makes the message longer and costs no round trip.
- Who gives up waiting takes the append out of the queue, or leaves one that was sent to be done wholly or not at all.
- What waits is bounded (:mod:`eventstore.room`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import psycopg
from psycopg.pq.abc import PGresult

from eventstore.append import BUSY, Append, Batch, Outcome
from eventstore.caller import Caller
from eventstore.database.connection import Connection
from eventstore.database.lane import Lane, Said
from eventstore.database.queries import query
from eventstore.database.translate import is_for_want_of_role, translate, translated
from eventstore.departure import SAY_ROLE, STATEMENTS, Group, Traveller, departing, keys_of, outcomes, statement
from eventstore.ending import end
from eventstore.errors import ConnectionLost, EventStoreError, ServerUnreachable, StoreClosed
from eventstore.events import AppendResult
from eventstore.room import Guest, Key, Room

LANES = 2
"""Groups under way at a time: while the server works on one, the next is made ready."""
PATIENT_LANES = 2
"""Further lanes, for conversations that somebody else holds."""
PATIENCE_MS = 1000
"""After which another conversation has its turn to wait."""

MOST_LOSSES = 2
"""Broken connections under one append, until its caller is told."""
RECONNECT_SECONDS = 0.2
HOMECOMING_SECONDS = 5.0

_KEEP_PLANS = query("eventstore", "keep_plans")
_LOCK_TIMEOUT = "55P03"
_NO_SUCH_STATEMENT = "26000"  # a pooler gave the connection to somebody else in between


class Committer:
    """Sends the appends of one event loop."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[Connection, str]]],
        patience: float,
        why: Callable[[EventStoreError], EventStoreError],
    ) -> None:
        """Takes what it needs of the store.

        Args:
            connect: opens a connection that may append, and tells the role that it took for that.
            patience: seconds to go on trying to connect while nobody answers.
            why: the better explanation of an error of the server.
        """
        self._connect = connect
        self._patience = patience
        self._why = why
        self._queue: deque[Traveller] = deque()
        self._set_aside: deque[Traveller] = deque()
        self._under_way: set[Key] = set()
        self._flights = {False: 0, True: 0}  # whether patient
        self._lanes: list[Lane] = []
        self._role = b""
        self._says_role = False
        self._opening: asyncio.Task[None] | None = None
        self._open_again_at = 0.0
        self._room = Room()
        self._at_rest = asyncio.Event()
        self._at_rest.set()
        self._is_due = False
        self._is_closed = False

    async def append(
        self, caller: Caller, appends: Sequence[Append], max_content_bytes: int, actor: str
    ) -> AppendResult:
        """Appends to one conversation or several, as soon as there is room for it.

        Raises:
            Forbidden, ConflictError, InputError: its own fate.
            ServerError: nobody answers, or the answer was lost.
        """
        guest = Guest(keys_of(caller.tenant, appends), sum(len(append.events) for append in appends))
        if not self._room.enter_at_once(guest):
            await self._room.enter(guest)
        try:
            if self._is_closed:
                raise StoreClosed
            batch = Batch(caller.tenant, appends, max_content_bytes, actor, caller.user or "")
            self._room.weigh(guest, batch.size)
            traveller = Traveller(batch, guest.keys, asyncio.get_running_loop().create_future())
            self._queue.append(traveller)
            if self._room.is_empty_but_for(guest):
                self._depart()  # nothing to travel with
            else:
                self._be_due()  # with all that come in this turn of the loop
            return batch.result(await traveller.came)
        finally:
            self._room.leave(guest)

    async def close(self) -> None:
        """Refuses what waits, sees what is under way home, and closes the lanes."""
        self._is_closed = True
        self._room.open()
        self._refuse_all(StoreClosed())
        if self._opening is not None:
            await end([self._opening])
        try:
            async with asyncio.timeout(HOMECOMING_SECONDS):
                await self._at_rest.wait()
        except TimeoutError:
            pass
        for lane in list(self._lanes):
            lane.close()

    def _be_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._depart)

    def _depart(self) -> None:
        """Sends all that can be sent now."""
        self._is_due = False
        while self._queue and self._flights[False] < LANES and (lane := self._idle_lane()):
            ways = min(LANES - self._flights[False], sum(lane.is_idle for lane in self._lanes))
            share = -(-len(self._queue) // ways)  # as much on each, so that client and server work at the same time
            group = departing(self._queue, self._under_way, share)
            if not group:
                break
            self._send(lane, group, is_patient=False)
        while self._set_aside and self._flights[True] < PATIENT_LANES and (lane := self._idle_lane()):
            waiting = departing(self._set_aside, self._under_way, 1)
            if not waiting:
                break
            self._send(lane, waiting, is_patient=True)

    def _idle_lane(self) -> Lane | None:
        for lane in self._lanes:
            if lane.is_idle:
                return lane
        if self._opening is None and not self._is_closed:
            self._opening = asyncio.create_task(self._open_lane(), name="eventstore-lane")
        return None

    def _send(self, lane: Lane, group: Group, *, is_patient: bool) -> None:
        self._under_way.update(key for traveller in group for key in traveller.keys)
        self._flights[is_patient] += 1
        self._at_rest.clear()
        said: Said | None = (SAY_ROLE, [self._role]) if self._says_role else None
        lane.send(
            *statement(group, PATIENCE_MS if is_patient else 0),
            lambda answer: self._arrived(group, answer, is_patient=is_patient, said_role=said is not None),
            said,
        )

    def _arrived(self, group: Group, answer: PGresult | psycopg.Error, *, is_patient: bool, said_role: bool) -> None:
        self._flights[is_patient] -= 1
        self._under_way.difference_update(key for traveller in group for key in traveller.keys)
        if isinstance(answer, psycopg.Error) and not said_role and is_for_want_of_role(answer):
            self._says_role = True
            self._queue.extendleft(reversed(group))
            if self._is_closed:
                self._refuse_all(StoreClosed())
        elif isinstance(answer, psycopg.Error):
            self._failed(group, answer, is_patient=is_patient)
        else:
            told = outcomes(answer)
            first = 0
            for traveller in group:
                last = first + len(traveller.batch.rows)
                self._tell(traveller, told[first:last])
                first = last
        if not any(self._flights.values()):
            self._at_rest.set()
        if self._queue or self._set_aside:
            self._be_due()

    def _tell(self, traveller: Traveller, told: list[Outcome]) -> None:
        if any(outcome.code == BUSY for outcome in told):
            self._set_aside_again(traveller)
        elif not traveller.came.done():
            traveller.came.set_result(told)

    def _set_aside_again(self, traveller: Traveller) -> None:
        traveller.is_alone = True
        if self._is_closed:
            self._refuse(traveller, StoreClosed())
        else:
            self._set_aside.append(traveller)

    def _failed(self, group: Group, error: psycopg.Error, *, is_patient: bool) -> None:
        known = translate(error)
        if is_patient and error.sqlstate == _LOCK_TIMEOUT:
            for traveller in group:
                self._set_aside_again(traveller)
            return
        lost = isinstance(known, ConnectionLost) or error.sqlstate == _NO_SUCH_STATEMENT
        for traveller in reversed(group):
            traveller.losses += lost
            if self._is_closed or traveller.losses > MOST_LOSSES or (not lost and len(group) == 1):
                self._refuse(traveller, self._why(translate(error)), error)
            else:
                traveller.is_alone = traveller.is_alone or not lost
                self._queue.appendleft(traveller)

    def _refuse(self, traveller: Traveller, error: Exception, cause: Exception | None = None) -> None:
        error.__cause__ = cause
        if not traveller.came.done():
            traveller.came.set_exception(error)

    def _refuse_all(self, error: Exception) -> None:
        for queue in (self._queue, self._set_aside):
            while queue:
                self._refuse(queue.popleft(), error)

    async def _open_lane(self) -> None:
        """Opens a lane. Where there is none at all, goes on trying for as long as a caller would wait."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience
        try:
            await asyncio.sleep(self._open_again_at - loop.time())
            while True:
                try:
                    self._lanes.append(await self._new_lane())
                    return
                except EventStoreError as error:
                    self._open_again_at = loop.time() + RECONNECT_SECONDS
                    is_passing = isinstance(error, ServerUnreachable | ConnectionLost)
                    if not self._lanes and (not is_passing or loop.time() >= give_up_at):
                        self._refuse_all(self._why(error))
                    if self._lanes or not (self._queue or self._set_aside):
                        return
                except Exception as error:
                    self._refuse_all(error)  # or they would wait for ever
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)
        finally:
            self._opening = None
            self._be_due()

    async def _new_lane(self) -> Lane:
        connection, role = await self._connect()
        self._role = role.encode()
        try:
            with translated():
                await connection.execute(_KEEP_PLANS)
        except BaseException:
            await connection.close()
            raise
        lane = Lane(connection, self._forget)
        try:
            with translated():
                await lane.prepare(STATEMENTS)
        except BaseException:
            lane.close()
            raise
        return lane

    def _forget(self, broken: Lane) -> None:
        if broken in self._lanes:
            self._lanes.remove(broken)
