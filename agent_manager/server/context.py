"""The contexts that endpoints work with: the server's and a request's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import cached_property, partial
from typing import Annotated, Any, TypeVar
from uuid import UUID, uuid4

from fastapi import Depends
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.accepted_messages import Accepted
from agent_manager.adapters.a2a_demo_messages import SummaryCache
from agent_manager.agent_registry import AGENTS, checked_conversation
from agent_manager.auth import Authenticator, Identity, TokenScope
from agent_manager.factory import AsyncManager
from agent_manager.manager import Manager
from agent_manager.metrics import Metrics
from agent_manager.server.authorization import RequestAuthenticator
from agent_manager.server.conversation_lookup import ResolvedConversation, resolve, visible_ids
from agent_manager.server.idempotency import Idempotency, claimed_uuid
from agent_manager.server.lag_history import LagHistory
from agent_manager.server.limits import Limits, TimeSlice
from agent_manager.server.problems import NotAllowed
from agent_manager.server.read_your_writes import READ_TABLES, ReadYourWrites, log_change_token
from agent_manager.server.readiness import Readiness
from agent_manager.server.rebuilds import Rebuilds
from agent_manager.server.response_cache import BodyWriter, Frame, Make, ResponseCache
from agent_manager.server.schemas.common import Out, PageQuery
from agent_manager.server.schemas.events import AppendedOut, AppendOut
from agent_manager.server.sealed_tokens import TokenSealer
from agent_manager.server.streams import EventSource, EventStream, SharedStreams
from agent_manager.server.tenant_contexts import TenantContext, TenantContexts
from agent_manager.settings import server_settings
from eventstore import (
    ANY,
    AppendResult,
    ConversationCreated,
    EventData,
    EventStore,
    ExpectedVersion,
    NewEvent,
    conversation_uuid,
)
from eventstore.concurrency import cancel_and_wait
from eventstore.database.pools import ScopedPool
from eventstore.errors import (
    InputError,
    InvalidCursor,
    NotCaughtUp,
    ProjectionPaused,
    conversation_not_found,
    printable,
)
from eventstore.events import HIGHEST_POSITION
from eventstore.ids import is_canonical_uuid
from eventstore.tracing import set_conversation
from projections import Reader
from projections.pages import Page

LARGE_LIMIT = 200
"""The rows above which a page is large."""
PARSED_BYTES = 2**20
"""Bytes of rows above which one request of the server at a time holds them in parsed form."""
ANSWERING_SECONDS = 5.0
"""The time that running answers have to finish when the server closes."""
SLICED_EVENTS = 500
"""An append of more events is handled in several steps of the event loop."""
CLAIMED = "claimed_actor"
"""The member of an event's metadata that holds the actor named in the request, if that is not the caller."""

POSITION_HEADER = "Eventstore-Position"
"""The header of a response from the read tables with the position that they held, for callers who may see positions."""

_log = logging.getLogger(__name__)

Row = TypeVar("Row")


class ServerContext:
    """The context of a server, shared by all requests.

    Args:
        manager: The manager of the store's own tenant.
        authenticator: Identifies the bearers of tokens.
        sealing: Seals positions and cursors.
        metrics: The metrics of the process; its own by default.
        requires_tokens: Whether every request needs a token.
        allows_private: Whether agents' cards may be fetched from addresses that are not global.

    Attributes:
        reader: The reader of the store's own tenant; its timeout applies to all requests.
        answering_seconds: The time that running answers have to finish when the server closes. A message without its
            answer stays pending, and the next start reports it.
        closing: Is set when the server closes; streams end then.
        rebuilds: The rebuilds of read tables that this server runs.
        lag_history: The lags of the projections in the last hour.
    """

    def __init__(
        self,
        store: EventStore,
        manager: AsyncManager,
        authenticator: Authenticator,
        sealing: TokenSealer,
        metrics: Metrics | None = None,
        *,
        requires_tokens: bool,
        allows_private: bool = True,
    ) -> None:
        self.store = store
        self.settings = server_settings(store.settings)
        self.authenticator = RequestAuthenticator(authenticator, store.tenant, requires_tokens=requires_tokens)
        self.sealing = sealing
        self.limits = Limits(self.settings)
        self.allows_private = allows_private
        self.metrics = metrics or Metrics(store)
        self.metrics.watch(lambda: self.limits.requests.taken, lambda: self.limits.streams.taken)
        self.readiness = Readiness(store)
        self.tenant_contexts = TenantContexts(store, manager, self._count_answers)
        self.reader = Reader(store)
        self.response_cache = ResponseCache(
            self.settings.response_bytes, self.settings.request_seconds, self.limits.turns
        )
        self.streams = SharedStreams(store, self.limits.turns)
        self.summaries = SummaryCache()
        self.closing = asyncio.Event()
        self.read_your_writes = ReadYourWrites(store)
        self.idempotency = Idempotency(store)
        self.rebuilds = Rebuilds(store)
        self.lag_history = LagHistory(store)
        self.answering_seconds = ANSWERING_SECONDS
        self._answering: set[asyncio.Task[Any]] = set()

    def is_large_page(self, limit: float) -> bool:
        """Return whether a page of so many rows is large: few of a tenant are read at a time."""
        return limit > LARGE_LIMIT

    def answer(self, tenant_context: TenantContext, accepted: Accepted) -> None:
        """Start to answer a message."""
        task = asyncio.create_task(self._answer(tenant_context, accepted))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, tenant_context: TenantContext, accepted: Accepted) -> None:
        try:
            with tenant_context.in_use():
                await tenant_context.manager.answer(accepted)
        except Exception:
            # An error of the agent is stored as the outcome; this is an error of the store. The message stays pending.
            fields = {"event": "answer_lost", "event_id": str(accepted.event_id)}
            _log.warning("the answer to message %s could not be stored", accepted.event_id, extra=fields, exc_info=True)

    def _count_answers(self, tenant: str, events: int) -> None:
        """Count what answers append against the tenant's limit: later requests can be rejected, answers cannot."""
        if self.authenticator.requires_tokens:
            self.limits.events.spend([tenant], events)

    async def close(self) -> None:
        """Wait for running answers, then close the contexts of the tenants."""
        self.closing.set()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self.answering_seconds)
        await cancel_and_wait(self._answering)
        await self.rebuilds.close()
        await self.lag_history.close()
        await self.tenant_contexts.close()
        await self.read_your_writes.close()


class RequestContext:
    """The context of one request: what an endpoint needs to read and write as the caller.

    Attributes:
        request: The request.
        identity: The caller, with their scopes.
        claim: The claim of the request's idempotency key; None if it has none.
        caller: The tenant and the user on whose behalf to read and write.
        reader: Reads what the caller may see.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.server_context: ServerContext = request.app.state.server_context
        self.tenant_context: TenantContext = request.state.tenant_context
        self.identity: Identity = request.state.identity
        self.claim: UUID | None = getattr(request.state, "claim", None)
        self.caller = self.identity.caller
        self.store: EventStore = self.server_context.store
        self.reader = Reader(self.store, caller=self.caller, timeout=self.server_context.reader.timeout)
        self._limit_keys: Sequence[str] = request.state.limit_keys
        self._large: AsyncExitStack | None = None

    @cached_property
    def time_slice(self) -> TimeSlice:
        """The time slice of work that the request does in the event loop."""
        return TimeSlice(self.server_context.limits.turns, self.caller.tenant)

    @cached_property
    def manager(self) -> Manager:
        """The manager of the tenant, acting for the caller."""
        return self.tenant_context.manager.acting_for(
            self.caller.user,
            self.identity.actor,
            partial(visible_ids, self.reader),
            partial(self.server_context.limits.events.spend, self._limit_keys),
        )

    def new_id(self, *names: str | int) -> UUID:
        """Return an id for something that the request creates; the same for each repetition with an idempotency key."""
        return uuid4() if self.claim is None else claimed_uuid(self.claim, *names)

    def spend_events(self, number: int) -> None:
        """Count events that were changed, or appended otherwise, against the limits of the caller."""
        self.server_context.limits.events.spend(self._limit_keys, number)

    def answer(self, accepted: Accepted) -> None:
        """Start to answer a message; the answer is stored after the response."""
        set_conversation(accepted.conversation)
        self.server_context.answer(self.tenant_context, accepted)

    async def in_thread(self, work: Callable[..., Row], *arguments: object) -> Row:
        """Return what a function returns that would block the event loop."""
        return await self.tenant_context.in_thread(work, *arguments)

    async def begin_large(self, size: int) -> None:
        """Wait until the request may hold so many bytes of rows, which take many times as much in parsed form.

        Raises:
            Busy: Others did so for too long.
        """
        if size > PARSED_BYTES and self._large is None:
            large = AsyncExitStack()
            await large.enter_async_context(self.server_context.response_cache.parsed(self.caller.tenant))
            self._large = large

    async def end_large(self) -> None:
        """Let other requests hold as much."""
        if self._large is not None:
            await self._large.aclose()
            self._large = None

    def check_writable(self, conversation_id: UUID) -> None:
        """Check that the caller may write to a conversation: only administrators to the registry of agents.

        Raises:
            NotAllowed: The caller lacks the scope ``admin``.
        """
        if conversation_id == conversation_uuid(self.caller.tenant, AGENTS) and not self.identity.may(TokenScope.ADMIN):
            raise NotAllowed(TokenScope.ADMIN)

    async def append(
        self,
        conversation_id: UUID,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion | None = None,
        begin: ConversationCreated | None = None,
        claimed_actor: str = "",
    ) -> AppendResult:
        """Append events as the caller.

        Args:
            expected: The expected version; None for any.
            begin: The first event of the conversation if it is new.
            claimed_actor: The actor that the request names, for events that name none themselves.

        Raises:
            NotAllowed: See :meth:`check_writable`.
            TooMany: The caller or its tenant has appended too many events.
        """
        set_conversation(conversation_id)
        self.check_writable(conversation_id)
        self.server_context.limits.events.take(self._limit_keys, len(events) + (begin is not None))
        result = await self.store.append(
            conversation_id,
            [self._with_actor(event, claimed_actor, number) for number, event in enumerate(events)],
            expected=ANY if expected is None else expected,
            begin=None if begin is None else self._with_actor(begin, claimed_actor, "begin"),
            tenant=self.caller.tenant,
            user=self.caller.user,
        )
        if len(events) > SLICED_EVENTS:
            # The entries of a result are created when they are first read: in a thread, not in the event loop.
            await asyncio.to_thread(getattr, result, "events")
        self.tenant_context.manager.written.note(result)
        return result

    async def append_to(
        self,
        conversation: str,
        events: Sequence[EventData | NewEvent],
        *,
        expected: ExpectedVersion | None,
        begin: ConversationCreated | None,
        claimed_actor: str = "",
        not_stored: Sequence[str] = (),
    ) -> Response:
        """Append events to the conversation that an id names, and return an :class:`AppendOut`.

        Args:
            begin: The first event of the conversation, which gets the id, if it is new; None if it must exist.
            not_stored: The notes in place of what is too large.

        Raises:
            NotFound: It does not exist, or the caller may not see it.
            Forbidden: The caller may not append to it, or wanted to begin it and may not see it.
        """
        resolved = await resolve(self.reader, conversation)
        if resolved is not None:
            target, begin = resolved.id, None
        elif begin is not None:
            target = checked_conversation(self.caller.tenant, conversation)
            given_id = None if is_canonical_uuid(conversation) else conversation
            begin = begin.model_copy(update={"given_id": given_id})
        else:
            raise conversation_not_found(conversation)
        result = await self.append(target, events, expected=expected, begin=begin, claimed_actor=claimed_actor)
        return await self._append_response(result, not_stored)

    async def _append_response(self, result: AppendResult, not_stored: Sequence[str]) -> Response:
        """Return an :class:`AppendOut`, encoded in slices, because it may describe ten thousand events."""
        items = []
        for event in result.events:
            items.append(AppendedOut.model_validate(event).with_position(self.position).to_bytes())
            await self.time_slice.give_way()
        whole = AppendOut(
            conversation_id=result.events[-1].conversation_id,
            position=self.position(result.position),
            version=result.version,
            not_stored=list(not_stored),
            events=[],
        )
        body = whole.to_bytes().removesuffix(b"]}") + b",".join(items) + b"]}"
        return Response(body, 201, media_type="application/json")

    def _with_actor(self, data: EventData | NewEvent, claimed: str, name: str | int) -> NewEvent:
        event = data if isinstance(data, NewEvent) else NewEvent(data, self.new_id("event", name))
        claimed = event.actor or claimed
        actor = self.identity.actor or claimed
        if claimed in ("", actor):
            return replace(event, actor=actor)
        return replace(event, actor=actor, metadata=event.metadata.model_copy(update={CLAIMED: claimed}))

    @property
    def sees_positions(self) -> bool:
        """True if the caller may see positions of the log, which all tenants share."""
        return self.identity.may(TokenScope.AUDIT)

    def position(self, position: int) -> int | str:
        """Return a position as the caller may see it: the number itself, or sealed."""
        if self.sees_positions:
            return position
        return self.server_context.sealing.seal_position(self.caller.tenant, position)

    def open_cursor(self, sealed: str | None) -> str | None:
        """Return the cursor that was sealed for the caller.

        Raises:
            InvalidCursor: It was sealed for another caller, or is damaged.
        """
        if sealed is None:
            return None
        cursor = self.server_context.sealing.open_cursor(self.caller, sealed)
        if cursor is None:
            raise InvalidCursor(
                f"the cursor {printable(sealed, 60)!r} is damaged, or of another caller: give the next of a page, "
                "whole and unchanged"
            )
        return cursor

    def _open_position(self, at_least: str | None) -> int:
        if at_least is None:
            return 0
        position = self.server_context.sealing.open_position(self.caller.tenant, at_least)
        if position is None and self.sees_positions and at_least.isascii() and at_least.isdigit():
            position = int(at_least)
        if position is None or position > HIGHEST_POSITION:
            raise InputError(
                f"at_least: {printable(at_least, 60)!r} is not a position that you were given: send the position of "
                "a response unchanged"
            )
        return position

    async def read(
        self,
        make: Make,
        *,
        parameters: object = "",
        projections: Sequence[str] = READ_TABLES,
        at_least: str | None = None,
        is_resolved: bool = False,
    ) -> Response:
        """Return the response to a read of the tables of some projections; the body is cached while they are unchanged.

        Args:
            parameters: The values of all parameters that the endpoint knows.
            is_resolved: Whether the request reads one conversation that is resolved for the caller, and is not a fork.
        """
        position, change_token = await self.caught_up(
            projections, self._open_position(at_least), is_resolved=is_resolved
        )
        response = await self.respond(change_token, make, parameters=parameters)
        if self.server_context.authenticator.is_own(self.request.headers):  # it tells how much all tenants write
            response.headers[POSITION_HEADER] = str(position)
        return response

    async def read_page(
        self,
        query: PageQuery,
        read: Callable[..., Awaitable[Page[Any]]],
        model: type[Out],
        *,
        conversation: ResolvedConversation | None = None,
        projections: Sequence[str] = READ_TABLES,
    ) -> Response:
        """Return the response to a request for a page of a list.

        Args:
            read: The reader's method for the list; it takes the members of ``query``.
            model: The response model of an item.
            conversation: The conversation whose list it is, resolved for the caller in this request.
        """
        filters = query.model_dump(exclude={"at_least"})

        async def write(out: BodyWriter) -> None:
            page = await (read(**filters) if conversation is None else read(conversation.id, **filters))
            await write_page(out, page, encoder(model), page.next)

        return await self.read(
            write,
            parameters=(None if conversation is None else conversation.id, filters),
            projections=projections,
            at_least=query.at_least,
            is_resolved=conversation is not None and not conversation.is_fork,
        )

    async def read_list(
        self, read: Callable[[], Awaitable[Iterable[Row]]], encode: Callable[[Row], bytes] = to_json
    ) -> Response:
        """Return the response to a read of a list that comes whole from the log; cached while that is unchanged."""

        async def write(out: BodyWriter) -> None:
            await write_page(out, await read(), encode)

        return await self.respond(await log_change_token(self.log), write)

    async def past_token(self, conversation: ResolvedConversation) -> str:
        """Return the change token of what the log holds of a conversation.

        What a fork shows depends on other conversations, on whether they are deleted and may be read.
        """
        return await log_change_token(self.log) if conversation.is_fork else str(conversation.version)

    @property
    def log(self) -> ScopedPool:
        """The log of the tenant, for change tokens, which are the same for all tenants and users."""
        return self.store.log(self.store.caller(self.caller.tenant))

    async def caught_up(
        self,
        projections: Sequence[str] = READ_TABLES,
        at_least: int = 0,
        *,
        is_resolved: bool = False,
        on_primary: bool = False,
    ) -> tuple[int, str]:
        """Return the position that the projections have applied, and the change token of their tables.

        They hold what the tenant wrote through this server.

        Args:
            on_primary: Whether the tables of the primary are meant even if reads go to a standby.

        Raises:
            NotCaughtUp: They do not within the reader's timeout.
        """
        written = self.tenant_context.manager.written
        timeout = self.reader.timeout
        try:
            return await self.server_context.read_your_writes.change_token(
                projections,
                written.by_conversation,
                timeout,
                self.caller,
                at_least=max(at_least, written.earlier),
                is_resolved=is_resolved,
                on_primary=on_primary,
            )
        except NotCaughtUp as error:
            if self.sees_positions or isinstance(error, ProjectionPaused):
                raise
            raise NotCaughtUp(  # without the positions
                f"the read tables do not hold it yet, after {timeout:g} seconds: repeat the request later; a worker "
                "must be running"
            ) from None

    async def respond(
        self,
        change_token: str,
        make: Make,
        *,
        parameters: object = "",
        frame: Frame | None = None,
        is_large: bool = False,
    ) -> Response:
        """Return a cached response, see :meth:`agent_manager.server.response_cache.ResponseCache.respond`."""
        return await self.server_context.response_cache.respond(
            self.request,
            change_token,
            make,
            identity=self.identity,
            seal=partial(self.server_context.sealing.seal_cursor, self.caller),
            parameters=repr(parameters),
            frame=frame or Frame(),
            is_large=is_large,
        )

    def stream(self, source: EventSource, after: int) -> EventStream:
        """Return the response that streams the events of a source as long as the caller is authorized."""
        return self.stream_texts(self.server_context.streams.follow(source, self.caller.tenant, after), after)

    def stream_texts(self, texts: AsyncGenerator[bytes, None], after: int) -> EventStream:
        """Return the response that streams encoded server-sent events as long as the caller is authorized.

        Args:
            after: The id of the last event before the first of them.
        """
        server_context = self.server_context
        return EventStream(
            texts,
            after,
            closing=server_context.closing,
            stream_limit=server_context.limits.streams.one(*self._limit_keys),
            is_authorized=server_context.authenticator.identity_check(self.request.headers, self.identity),
        )


async def write_page(
    out: BodyWriter,
    items: Iterable[Row] | AsyncIterable[Row],
    encode: Callable[[Row], bytes],
    next: str | None = None,
) -> None:
    """Write a page of a list.

    Args:
        next: The cursor of the next page; None if this page is the last, or the list is not paged.
    """
    await out.write(b'{"next":' + to_json(next) + b',"items":[')
    await out.write_items(items, encode)
    await out.write(b"]}")


def encoder(model: type[Out]) -> Callable[[object], bytes]:
    """Return a function that encodes an object as JSON by a response model."""
    return lambda row: model.model_validate(row).to_bytes()


async def _request_context(request: Request) -> RequestContext:  # FastAPI would call the class itself in a thread
    return RequestContext(request)


CurrentContext = Annotated[RequestContext, Depends(_request_context)]
"""The parameter of an endpoint that is the context of its request."""
