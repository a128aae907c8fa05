"""What endpoints work with: the server's context, a tenant's, and that of one request."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

from fastapi import Depends
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.adapters.a2a_demo_messages import SummaryCache
from agent_manager.agent_registry import AGENTS
from agent_manager.agents.tenant_isolation import TenantIsolatedAgent
from agent_manager.auth import Identity, Scope
from agent_manager.conversation import Accepted
from agent_manager.factory import AsyncManager
from agent_manager.manager import Manager
from agent_manager.server.authorization import CurrentIdentity, RequestAuthenticator, TokenAuthenticator, limit_keys_of
from agent_manager.server.errors import NotAllowed
from agent_manager.server.idempotency import Claim, Idempotency
from agent_manager.server.limits import Counters, Limits
from agent_manager.server.lookups import HIGHEST_POSITION, READ_TABLES, ReadYourWrites, log_change_token, visible_ids
from agent_manager.server.response_cache import NO_FRAME, BodyWriter, Frame, Make, ResponseCache
from agent_manager.server.schemas.common import Out
from agent_manager.server.sealed_tokens import TokenSealer
from agent_manager.server.streams import ChangeNotifier, EventSource, EventStream, SharedStreams
from agent_manager.settings import server_settings
from agent_manager.storage import AppendedPositions
from eventstore import ANY, AppendResult, EventData, EventStore, ExpectedVersion, NewEvent, conversation_uuid
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import InputError, InvalidCursor, NotCaughtUp, printable
from projections import Reader, Search, Statistics

# What the server keeps for each tenant: opened when somebody of it asks, let go when it has long been idle

MOST = 200
"""Tenants for whom something is kept; more only while so many are served at the same time."""
RUNNING = 8
"""Requests of a tenant that read, and that append, are carried out so many at a time: as many as its connections."""
LARGE_BYTES = 64 * 1024
"""Requests with larger bodies are carried out one at a time for each tenant."""
LARGE_LIMIT, LARGE_READS = 200, 2
"""Requests for pages with more rows are carried out so many at a time: one is encoded while another is read."""
OWN_FOLD_BYTES = 64 * 1024 * 1024
FOLD_BYTES = OWN_FOLD_BYTES // MOST
"""Of contents that the managers of the server's own tenant and of each other one keep folded, about."""


class TenantContext:
    """One tenant's.

    Attributes:
        manager: its conversations, agents and answers.
        change_notifier: tells streams that their conversations have changed.
    """

    def __init__(self, store: EventStore, manager: AsyncManager) -> None:
        self.tenant = manager.tenant
        self.manager = manager
        self.change_notifier = ChangeNotifier(store, manager.tenant)
        self._users = 0
        self._large_appends = asyncio.Lock()
        self._large_reads = asyncio.Semaphore(LARGE_READS)
        self._running = {appends: asyncio.Semaphore(RUNNING) for appends in (False, True)}

    @property
    def is_idle(self) -> bool:
        """Whether nobody works with it."""
        return self._users == 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps it until the end of the block."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    @asynccontextmanager
    async def turn_for(self, body_bytes: int, limit: int, *, appends: bool) -> AsyncIterator[None]:
        """Carry out the block when it is the request's turn among those of the tenant.

        Every step of a request waits for one step of each other request that runs. As few of each tenant run at a time,
        none of another tenant waits for long; those that read wait for workers, and must not hold up those that append.

        A large body takes memory and the event loop's time: ten thousand events are a second of it. One at a time, a
        tenant's requests hold one such body in parsed form, and the others are refused as soon as that has spent the
        tenant's events. Large pages take the event loop's time, too.

        Args:
            limit: rows that the request asks for.
        """
        large_append = self._large_appends if body_bytes > LARGE_BYTES else nullcontext()
        large_read = self._large_reads if limit > LARGE_LIMIT else nullcontext()
        async with large_append, large_read, self._running[appends]:
            yield

    @property
    def written(self) -> AppendedPositions:
        """What was appended for the tenant through this server: its reads hold it."""
        return self.manager.written

    async def close(self) -> None:
        """Ends what is under way."""
        await self.change_notifier.close()
        await self.manager.__aexit__()


class TenantContexts:
    """Those of all tenants that were asked for last.

    Args:
        manager: of the store's own tenant, which stays; whoever gives it closes it.
        count: called with a tenant and the number of events that its manager has appended for answers.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        count: Callable[[str, int], None] = lambda tenant, events: None,
        most: int = MOST,
    ) -> None:
        self._store = store
        self._count = count
        manager.count_with(partial(count, manager.tenant))
        self._most = most
        self.own = TenantContext(store, manager)
        self._others: OrderedDict[str, TenantContext] = OrderedDict()
        self._written: dict[str, int] = {}

    def __len__(self) -> int:
        """How many there are."""
        return 1 + len(self._others)

    async def of(self, tenant: str) -> TenantContext:
        """That of a tenant."""
        if tenant == self.own.tenant:
            return self.own
        tenant_context = self._others.get(tenant)
        if tenant_context is None:
            tenant_context = self._others[tenant] = self._opened(tenant)
            with tenant_context.in_use():
                await self._shrink()
        else:
            self._others.move_to_end(tenant)
        return tenant_context

    async def close(self) -> None:
        """Closes all."""
        await self.own.change_notifier.close()
        while self._others:
            _, tenant_context = self._others.popitem()
            await tenant_context.close()

    def _opened(self, tenant: str) -> TenantContext:
        answer = self.own.manager.agent
        apart = None if answer is None else TenantIsolatedAgent(answer)
        manager = AsyncManager(self._store, tenant=tenant, answer=apart, runs_worker=False, fold_bytes=FOLD_BYTES)
        manager.count_with(partial(self._count, tenant))
        tenant_context = TenantContext(self._store, manager)
        tenant_context.written.note_position(self._written.pop(tenant, 0))
        return tenant_context

    async def _shrink(self) -> None:
        for tenant, tenant_context in list(self._others.items()):
            if len(self) <= self._most:
                return
            if tenant_context.is_idle and self._others.get(tenant) is tenant_context:
                del self._others[tenant]
                self._written[tenant] = tenant_context.written.position  # later reads still hold what was written
                await tenant_context.close()


# What one server works with, and what it keeps between requests

ANSWERING_SECONDS = 5.0
"""How long answers that are under way may still take when the server closes."""

_log = logging.getLogger(__name__)


class ServerContext:
    """One server's.

    Args:
        manager: of the store's own tenant.
        authenticator: tells who bears a token.
        sealing: seals what callers may keep but not read.
        requires_tokens: whether nobody may ask without one.
        allows_private: whether agents' cards may be fetched from addresses that are not global.

    Attributes:
        reader: of the store's own tenant; its timeout is everybody's.
        answering_seconds: how long answers that are under way may still take when the server closes. A message whose
            answer did not come stays pending, and the next start says so.
        closing: is set when the server closes; endless answers end then.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        authenticator: TokenAuthenticator,
        sealing: TokenSealer,
        *,
        requires_tokens: bool,
        allows_private: bool = True,
    ) -> None:
        self.store = store
        self.settings = server_settings(store.settings)
        self.gate = RequestAuthenticator(authenticator, store.tenant, requires_tokens=requires_tokens)
        self.sealing = sealing
        self.limits = Limits(self.settings)
        self.allows_private = allows_private
        self.counters = Counters()
        self.tenant_contexts = TenantContexts(store, manager, self._count_answers)
        self.reader = Reader(store)
        self.response_cache = ResponseCache(
            self.settings.answer_bytes, self.settings.request_seconds, self.limits.turns
        )
        self.streams = SharedStreams(store, self.limits.turns)
        self.summaries = SummaryCache()
        self.closing = asyncio.Event()
        self.read_your_writes = ReadYourWrites(store)
        self.idempotency = Idempotency(store)
        self.answering_seconds = ANSWERING_SECONDS
        self._answering: set[asyncio.Task[Any]] = set()

    def answer(self, tenant_context: TenantContext, accepted: Accepted) -> None:
        """Has a message answered while the server goes on."""
        task = asyncio.create_task(self._answer(tenant_context, accepted))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, tenant_context: TenantContext, accepted: Accepted) -> None:
        try:
            with tenant_context.in_use():
                await tenant_context.manager.answer(accepted)
        except Exception:
            # What an agent raises is stored as the outcome; this is the store itself. The message stays pending.
            _log.warning("the answer to message %s could not be stored", accepted.event_id, exc_info=True)

    def _count_answers(self, tenant: str, events: int) -> None:
        """Count what answers append for a tenant: it cannot be refused, but what is requested next can."""
        if self.gate.requires_tokens:
            self.limits.events.spend([tenant], events)

    def close_streams(self) -> None:
        """Ends the endless answers."""
        self.closing.set()

    async def close(self) -> None:
        """Lets answers that are under way end."""
        self.closing.set()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self.answering_seconds)
        await cancel_and_wait(self._answering)
        await self.tenant_contexts.close()
        await self.read_your_writes.close()


# What an endpoint works with: the server's, as one caller may see and change it

Row = TypeVar("Row")

SLICED_EVENTS = 500
"""Of an append with more events, nothing is done to all of them in one step of the event loop."""
CLAIMED = "claimed_actor"
"""Where the metadata of an event keep whom a request names as its actor, if that is not who made the request."""


class RequestContext:
    """One request's.

    Attributes:
        identity: who asks.
        claim: the idempotency key of the request, if it has one.
        caller: on whose behalf to read and write.
        reader: reads what the caller may see.
    """

    def __init__(
        self,
        server_context: ServerContext,
        tenant_context: TenantContext,
        identity: Identity,
        claim: Claim | None = None,
    ) -> None:
        self.server_context = server_context
        self.tenant_context = tenant_context
        self.identity = identity
        self.claim = claim
        self.caller = identity.caller
        self.store: EventStore = server_context.store
        self.reader = Reader(server_context.store, caller=self.caller, timeout=server_context.reader.timeout)

    @cached_property
    def shares(self) -> Sequence[str]:
        """Whose shares of the limits the request takes."""
        return limit_keys_of(self.identity)

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
            return await visible_ids(self.reader, conversations)

        return self.tenant_context.manager.acting_for(
            self.caller.user, self.identity.actor, sees, partial(self.server_context.limits.events.spend, self.shares)
        )

    def new_id(self, *names: str | int) -> UUID:
        """An id for something that the request makes; the same whenever one with an idempotency key is repeated."""
        return uuid4() if self.claim is None else self.claim.uuid(*names)

    def answer(self, accepted: Accepted) -> None:
        """Has a message answered after the request."""
        self.server_context.answer(self.tenant_context, accepted)

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
        self.server_context.limits.events.take(self.shares, len(events))
        result = await self.store.append(
            conversation_id,
            [self._caused(event, claimed, number) for number, event in enumerate(events)],
            expected=expected,
            tenant=self.caller.tenant,
            user=self.caller.user,
        )
        if len(events) > SLICED_EVENTS:
            # The entries of a result are made when they are first read. In a thread: the event loop goes on meanwhile.
            await asyncio.to_thread(getattr, result, "events")
        self.tenant_context.written.note(result)
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
        return (
            position if self.sees_positions else self.server_context.sealing.seal_position(self.caller.tenant, position)
        )

    def opened(self, cursor: str | None) -> str | None:
        """Return a cursor that was sealed for the caller.

        Raises:
            InvalidCursor: it was not, or is damaged.
        """
        if cursor is None:
            return None
        opened = self.server_context.sealing.open_cursor(self.caller, cursor)
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
        position = self.server_context.sealing.open_position(self.caller.tenant, given)
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
        written = self.tenant_context.written
        at_least = max(at_least, written.earlier)
        timeout = self.reader.timeout
        try:
            return await self.server_context.read_your_writes.change_token(
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
        change_token = await self.caught_up(projections, self._position_of(at_least), of_found=of_found)
        return await self.given(request, change_token, make, asked=asked)

    async def read_log(
        self, request: Request, make: Make, *, asked: object = "", change_token: object = None, is_large: bool = False
    ) -> Response:
        """The answer to a read of the log itself, which is as it was while the mark is: that of all if left out."""
        change_token = await log_change_token(self.store) if change_token is None else change_token
        return await self.given(request, str(change_token), make, asked=asked, is_large=is_large)

    def stream(self, request: Request, source: EventSource, after: int) -> EventStream:
        """The endless answer that says these events, as long as whoever asks may listen."""
        server_context = self.server_context
        return EventStream(
            server_context.streams.follow(source, self.caller.tenant, after),
            after,
            closing=server_context.closing,
            place=server_context.limits.streams.one(*self.shares),
            is_let_in=server_context.gate.still(request.headers, self.identity),
        )

    async def given(
        self,
        request: Request,
        change_token: str,
        make: Make,
        *,
        asked: object = "",
        frame: Frame = NO_FRAME,
        is_large: bool = False,
    ) -> Response:
        """The answer of this caller alone, see :meth:`Bodies.answer`."""
        return await self.server_context.response_cache.answer(
            request,
            change_token,
            make,
            scope=self.identity,
            seal=partial(self.server_context.sealing.seal_cursor, self.caller),
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


def server_context_of(request: Request) -> ServerContext:
    """The server's."""
    server_context: ServerContext = request.app.state.server_context
    return server_context


async def _here(request: Request, identity: CurrentIdentity) -> RequestContext:
    return RequestContext(
        server_context_of(request), request.state.tenant_context, identity, getattr(request.state, "claim", None)
    )


CurrentContext = Annotated[RequestContext, Depends(_here)]
"""An endpoint's parameter."""
