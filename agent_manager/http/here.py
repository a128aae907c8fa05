"""What an endpoint works with: the server's, as one caller may see and change it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Annotated, TypeVar
from uuid import UUID, uuid4

from fastapi import Depends
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.http.asking import Asking, shares_of
from agent_manager.http.backend import Backend
from agent_manager.http.bodies import NO_FRAME, Frame, Make
from agent_manager.http.desks import Desk
from agent_manager.http.idempotency import Claim
from agent_manager.http.looking import HIGHEST_POSITION, READ_TABLES, mark_of_log, seen_of
from agent_manager.http.models.common import Out
from agent_manager.http.refusals import NotAllowed
from agent_manager.http.spool import BodyWriter
from agent_manager.http.streams import EventStream
from agent_manager.identity import Identity, Scope
from agent_manager.manager.manager import Manager
from agent_manager.manager.registry import AGENTS
from agent_manager.manager.views import Accepted
from eventstore import ANY, AppendResult, Event, EventData, EventStore, ExpectedVersion, NewEvent, conversation_uuid
from eventstore.errors import InputError, InvalidCursor, NotCaughtUp, printable
from projections import Reader, Search, Statistics

Row = TypeVar("Row")

CLAIMED = "claimed_actor"
"""Where the metadata of an event keep whom a request names as its actor, if that is not who made the request."""


class HereAndNow:
    """One request's.

    Attributes:
        identity: who asks.
        claim: the idempotency key of the request, if it has one.
        caller: on whose behalf to read and write.
        reader: reads what the caller may see.
    """

    def __init__(self, backend: Backend, desk: Desk, identity: Identity, claim: Claim | None = None) -> None:
        self.backend = backend
        self.desk = desk
        self.identity = identity
        self.claim = claim
        self.caller = identity.caller
        self.store: EventStore = backend.store
        self.reader = Reader(backend.store, caller=self.caller, timeout=backend.reader.timeout)

    @cached_property
    def shares(self) -> Sequence[str]:
        """Whose shares of the limits the request takes."""
        return shares_of(self.identity)

    @cached_property
    def search(self) -> Search:
        """Searches what the caller may see."""
        return Search(self.store, caller=self.caller)

    @cached_property
    def statistics(self) -> Statistics:
        """Counts what the caller may see."""
        return Statistics(self.store, caller=self.caller)

    @cached_property
    def manager(self) -> Manager:
        """The tenant's manager, as the caller may work with it."""

        async def sees(conversations: Collection[UUID]) -> set[UUID]:
            return await seen_of(self.reader, conversations)

        return self.desk.manager.acting_for(
            self.caller.user, self.identity.actor, sees, partial(self.backend.limits.events.spend, self.shares)
        )

    def new_id(self, *names: str | int) -> UUID:
        """An id for something that the request makes; the same whenever one with an idempotency key is repeated."""
        return uuid4() if self.claim is None else self.claim.uuid(*names)

    def answer(self, accepted: Accepted) -> None:
        """Has a message answered after the request."""
        self.backend.answer(self.desk, accepted)

    def check_writable(self, conversation_id: UUID) -> None:
        """Refuses what only administrators may write to: where agents are registered, whatever is written there.

        Raises:
            NotAllowed: the caller is none.
        """
        if conversation_id == conversation_uuid(self.caller.tenant, AGENTS) and not self.identity.may(Scope.ADMIN):
            raise NotAllowed(Scope.ADMIN)

    async def append(
        self,
        conversation_id: UUID,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion = ANY,
        claimed: str = "",
    ) -> AppendResult:
        """Appends events as the caller.

        Args:
            claimed: the actor that the request names, of events that name none themselves.

        Raises:
            NotAllowed: see :meth:`check_writable`.
            TooMany: the caller or its tenant has appended too many events.
        """
        self.check_writable(conversation_id)
        self.backend.limits.events.take(self.shares, len(events))
        result = await self.store.append(
            conversation_id,
            [self._caused(event, claimed, number) for number, event in enumerate(events)],
            expected=expected,
            tenant=self.caller.tenant,
            user=self.caller.user,
        )
        self.desk.written.note(result)
        return result

    def _caused(self, given: EventData | NewEvent, claimed: str, number: int) -> NewEvent:
        event = given if isinstance(given, NewEvent) else NewEvent(given, self.new_id("event", number))
        claimed = event.actor or claimed
        actor = self.identity.actor or claimed
        if claimed in ("", actor):
            return replace(event, actor=actor)
        return replace(event, actor=actor, metadata=event.metadata.model_copy(update={CLAIMED: claimed}))

    @property
    def sees_positions(self) -> bool:
        """Whether the caller may see positions of the log, which all tenants share."""
        return self.identity.may(Scope.AUDIT)

    def position(self, position: int) -> int | str:
        """Return a position as the caller is told it: the number itself, or sealed."""
        return position if self.sees_positions else self.backend.sealing.seal_position(self.caller.tenant, position)

    def opened(self, cursor: str | None) -> str | None:
        """Return a cursor that was sealed for the caller.

        Raises:
            InvalidCursor: it was not, or is damaged.
        """
        if cursor is None:
            return None
        opened = self.backend.sealing.open_cursor(self.caller, cursor)
        if opened is None:
            raise InvalidCursor(
                f"the cursor {printable(cursor, 60)!r} is damaged, or of another caller: give the next of a page, "
                "whole and unchanged"
            )
        return opened

    def _position_of(self, given: str | None) -> int:
        """Return the position that a request names in ``at_least``."""
        if given is None:
            return 0
        position = self.backend.sealing.open_position(self.caller.tenant, given)
        if position is None and self.sees_positions and given.isascii() and given.isdigit():
            position = int(given)
        if position is None or position > HIGHEST_POSITION:
            raise InputError(
                f"at_least: {printable(given, 60)!r} is not a position that you were given: send the position of an "
                "answer unchanged"
            )
        return position

    async def caught_up(
        self, projections: Sequence[str] = READ_TABLES, at_least: int = 0, *, of_found: bool = False
    ) -> str:
        """What the tables of the projections hold, as a mark, once they hold what the tenant wrote through this server.

        Raises:
            NotCaughtUp: they do not within the reader's time.
        """
        written = self.desk.written
        at_least = max(at_least, written.earlier)
        timeout = self.reader.timeout
        try:
            return await self.backend.hurry.mark(
                projections, written.by_conversation, timeout, self.caller, at_least=at_least, of_found=of_found
            )
        except NotCaughtUp:
            if self.sees_positions:
                raise
            raise NotCaughtUp(  # without the positions
                f"the read tables do not hold it yet, after {timeout:g} seconds: repeat the request later; a worker "
                "must be running"
            ) from None

    async def read(
        self,
        request: Request,
        make: Make,
        *,
        asked: object = "",
        projections: Sequence[str] = READ_TABLES,
        at_least: str | None = None,
        of_found: bool = False,
    ) -> Response:
        """The answer to a read of the tables of some projections; not made anew where they are as they were.

        Args:
            asked: what is asked of the endpoint: the values of all that it knows.
            of_found: what is read is of a conversation that was found for the caller in this request.
        """
        mark = await self.caught_up(projections, self._position_of(at_least), of_found=of_found)
        return await self.given(request, mark, make, asked=asked)

    async def read_log(
        self, request: Request, make: Make, *, asked: object = "", mark: object = None, is_large: bool = False
    ) -> Response:
        """The answer to a read of the log itself, which is as it was while the mark is: that of all if left out."""
        mark = await mark_of_log(self.store) if mark is None else mark
        return await self.given(request, str(mark), make, asked=asked, is_large=is_large)

    def stream(self, request: Request, events: AsyncIterator[Event], after: int) -> EventStream:
        """The endless answer that says these events, as long as whoever asks may listen."""
        backend = self.backend
        return EventStream(
            events,
            after,
            closing=backend.closing,
            place=backend.limits.streams.one(*self.shares),
            is_let_in=backend.gate.still(request.headers, self.identity),
        )

    async def given(
        self,
        request: Request,
        mark: str,
        make: Make,
        *,
        asked: object = "",
        frame: Frame = NO_FRAME,
        is_large: bool = False,
    ) -> Response:
        """The answer of this caller alone, see :meth:`Bodies.answer`."""
        return await self.backend.bodies.answer(
            request,
            mark,
            make,
            whose=self.identity,
            seal=partial(self.backend.sealing.seal_cursor, self.caller),
            asked=repr(asked),
            frame=frame,
            is_large=is_large,
        )


def writes(make: Callable[[], Awaitable[BaseModel]]) -> Make:
    """Return what writes a body that is one small model."""

    async def write(out: BodyWriter) -> None:
        await out.write((await make()).model_dump_json().encode())

    return write


async def write_page(out: BodyWriter, rows: Iterable[Row], encode: Callable[[Row], bytes], next: str | None) -> None:
    """Write a page of a list.

    Args:
        next: the cursor of the page after it.
    """
    await out.write(b'{"next":' + to_json(next) + b',"items":[')
    await out.write_items(rows, encode)
    await out.write(b"]}")


def encoder(model: type[Out]) -> Callable[[object], bytes]:
    """Return what encodes an object as a model of answers has it."""
    return lambda row: model.model_validate(row).model_dump_json().encode()


def backend_of(request: Request) -> Backend:
    """The server's."""
    backend: Backend = request.app.state.backend
    return backend


async def _here(request: Request, identity: Asking) -> HereAndNow:
    return HereAndNow(backend_of(request), request.state.desk, identity, getattr(request.state, "claim", None))


Here = Annotated[HereAndNow, Depends(_here)]
"""An endpoint's parameter."""
