"""Sessions and artifacts of google-adk in the event store. Tested with google-adk 2.13.

One line changes::

    session_service = EventStoreSessionService()

A session is a conversation, an event of google-adk one event of it (:mod:`agent_manager.adapters.google_adk_events`).
The state is not stored, it follows from the changes that events make: that of a session from its own events, that of an
application and of a user from those of all their sessions; of two changes of a value the later one in the log counts.

Reads see everything that was appended before them, whether a worker runs or not. A session is read from the log. Lists
and shared state are read from the tables of the projection :data:`SESSIONS` as far as they are filled, and for the rest
from the log. If the rest becomes long, because no worker follows the projection, the service applies it itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from google.adk.cli.service_registry import get_service_registry
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event as AdkEvent
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from google.adk.sessions.state import State
from psycopg.types.numeric import Int8
from pydantic_core import to_jsonable_python

from agent_manager.a2a import Json
from agent_manager.adapters.blobs import files_in, load_files, referring, store_files
from agent_manager.adapters.google_adk_artifacts import EventStoreArtifactService
from agent_manager.adapters.google_adk_events import (
    ADK,
    EVENT,
    SESSIONS,
    STATE,
    TASK_EVENTS,
    answered_calls,
    conversation_name,
    event_of,
    lists_of_parts,
    message_of,
    moved_events,
    task_events,
)
from agent_manager.adapters.google_adk_service import SCHEME, Service, settings_of_uri
from agent_manager.adapters.google_adk_state import (
    DELETIONS,
    EVENTS,
    TYPES,
    Change,
    SessionFold,
    SharedState,
    is_imported,
    own_state,
    seconds_of,
)
from agent_manager.adapters.store_access import finished_in_store_loop, in_store_loop, shown
from agent_manager.adapters.tool_calls import tasks_of_calls
from agent_manager.importers.source import read_time
from eventstore import (
    EXISTS,
    NO_STREAM,
    AppendResult,
    ApplicationEvent,
    Caller,
    ConversationCreated,
    ConversationDeleted,
    Event,
    EventData,
    EventStore,
    Metadata,
    NewEvent,
    Settings,
    SyncEventStore,
    conversation_uuid,
    message_from_sent,
)
from eventstore.concurrency import cancel_and_wait, independent_task
from eventstore.database.queries import query
from eventstore.errors import (
    ConversationIsDeleted,
    EventIdConflict,
    EventStoreError,
    PermissionDenied,
    StoreClosed,
    WrongExpectedVersion,
)
from eventstore.ids import assigned_uuid
from eventstore.json_text import from_json
from eventstore.read import RawRows
from projections import catch_up
from projections.custom_projections import create_missing_tables
from projections.status import POSITION_OF_ALL_PARTITIONS

__all__ = ["EventStoreArtifactService", "EventStoreSessionService", "register_services"]

LONGEST_LAG = 500
"""Positions that the tables may be behind the log before the service fills them. Reading so many events takes about a
millisecond; a worker that follows the log is nearer to its end, unless it has much to do."""

_logger = logging.getLogger("eventstore.google_adk")


class EventStoreSessionService(Service, BaseSessionService):
    """Sessions of google-adk in the event store.

    Args:
        store: an open store; it stays the caller's. Or the settings of a store of the service's own; from the
            environment and ``.env`` if left out.
        owned_by_user: each session belongs to its user in the store too: row-level security hides it from other users,
            and users of the HTTP API see their own. Sessions that were imported or stored without it belong to the
            tenant, and are not found with it.
    """

    def __init__(
        self, store: EventStore | SyncEventStore | Settings | None = None, *, owned_by_user: bool = False
    ) -> None:
        super().__init__(store, owned_by_user=owned_by_user, prepare=_create_tables)
        self._filling: asyncio.Task[None] | None = None
        self._appending: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        """Close the service's own store; a store that was given stays open."""
        if self._filling is not None:
            with suppress(StoreClosed):
                await self._access.run(cancel_and_wait([self._filling]))
        await super().close()

    @finished_in_store_loop
    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: the user has a session with this id in the application.
        """
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        own = {name: value for name, value in (state or {}).items() if not name.startswith(State.TEMP_PREFIX)}
        own = to_jsonable_python(own, serialize_unknown=True)
        created_at = datetime.fromtimestamp(platform_time.get_time(), UTC)
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        async for generation in self._generations(**names):
            name = conversation_name(**names, generation=generation)
            adk = names | ({"generation": generation} if generation > 1 else {})
            data: list[EventData] = [ConversationCreated(given_id=name, metadata={ADK: adk})]
            if own:
                data.append(ApplicationEvent(STATE, own))
            metadata = Metadata(occurred_at=created_at)
            events = [NewEvent(each, actor=user_id[:255], metadata=metadata) for each in data]
            try:
                result, (_, shared) = await asyncio.gather(
                    self._append(user_id, name, events, NO_STREAM), self._known(app_name, user_id, session_id)
                )
            except ConversationIsDeleted:
                continue
            except WrongExpectedVersion:
                raise AlreadyExistsError(f"Session with id {session_id} already exists.") from None
            shared.add(user_id, own, result.position)
            known = SessionFold(generation, False, result.version, created_at.timestamp(), own_state(own))
            return _session(**names, known=known, shared=shared.merged(user_id))
        raise AssertionError("there is always another generation")

    @in_store_loop
    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """Return a session with all its events, or with some of them; None if it does not exist."""
        return await self._get(app_name, user_id, session_id.strip(), config or GetSessionConfig())

    @in_store_loop
    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """Return the sessions of an application or of one of its users, without events; the last updated one last."""
        caller = self._caller(user_id)
        given = {"tenant": caller.tenant, "app": app_name, "user": user_id, "projections": [SESSIONS.name]}
        rows, shared_rows = await asyncio.gather(
            self._store.tables(caller, on_primary=True).fetch(_SESSIONS, given, cursor=RawRows),
            self._store.tables(self._caller(), on_primary=True).fetch(_SHARED_STATES, given),
        )
        last, applied = rows[0][1], min(rows[0][0], shared_rows[0][0])
        tail = shared_tail = await self._tail(caller, app_name, applied, last, shared=False)
        if caller.user is not None:  # the tail has what the user may see, and others set values too
            shared_tail = await self._tail(self._caller(), app_name, applied, last, shared=True)
        shared = SharedState(row[2:] for row in shared_rows if row[2] is not None)
        for change in shared_tail:
            shared.add(change.user_id, change.delta, change.position)
        changes: dict[UUID, list[Change]] = defaultdict(list)
        for change in tail:
            if user_id in (None, change.user_id):
                changes[change.conversation_id].append(change)
        merged = {owner: shared.merged(owner) for owner in {row[3] for row in rows} | {each.user_id for each in tail}}
        sessions = []
        from_log: list[tuple[str, str]] = []
        for _, _, conversation_id, owner, session_id, state, update_time, version, generation, is_rewound in rows:
            if conversation_id is not None:
                known = SessionFold(generation, False, version, update_time, from_json(state[1:]), is_rewound)
                known.add_changes(changes.pop(conversation_id, ()))
                if known.is_rewound:
                    from_log.append((owner, session_id))
                elif not known.is_deleted:
                    sessions.append(_session(app_name, owner, session_id, known, merged[owner]))
        for first, *more in changes.values():
            if first.version == 1:
                known = SessionFold(first.generation)
                known.add_changes([first, *more])
                if known.is_rewound:
                    from_log.append((first.user_id, first.session_id))
                elif not known.is_deleted:
                    sessions.append(_session(app_name, first.user_id, first.session_id, known, merged[first.user_id]))
            elif any(change.event_type == "conversation.reactivated" for change in (first, *more)):
                from_log.append((first.user_id, first.session_id))
        for owner, session_id in from_log:
            session = await self._get(app_name, owner, session_id, GetSessionConfig(num_recent_events=0))
            sessions += [] if session is None else [session]
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    @finished_in_store_loop
    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Hide a session from all reads. What it set of the state of its user and application remains."""
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id.strip()}
        async for generation in self._generations(**names):
            name = conversation_name(**names, generation=generation)
            try:
                await self._append(user_id, name, [NewEvent(ConversationDeleted(), actor=user_id[:255])], EXISTS)
            except ConversationIsDeleted:
                continue
            except WrongExpectedVersion:
                pass  # it does not exist
            return

    @in_store_loop
    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state that the sessions of a user share, without prefixes."""
        _, shared = await self._known(app_name, user_id, "")
        return shared.of_user(user_id)

    @finished_in_store_loop
    async def append_event(self, session: Session, event: AdkEvent) -> AdkEvent:
        """Append an event to a session, durably. Appending an event again is harmless.

        Raises:
            StaleSessionError: the session was changed by another writer since it was read.
            SessionNotFoundError: it does not exist, or was deleted.
            InvalidEvent: something in the event cannot be stored.
            EventTooLarge: it is larger than the limit, without its files.
        """
        if event.partial:
            return event
        names = {"app_name": session.app_name, "user_id": session.user_id, "session_id": session.id}
        lock = self._appending.setdefault((session.app_name, session.user_id, session.id), asyncio.Lock())
        async with lock:  # branches of one agent append to the same session at the same time
            generation, version = await self._revision(session, names)
            self._apply_temp_state(session, event)
            event = self._trim_temp_delta_state(event)
            name = conversation_name(**names, generation=generation)
            appended = (await self._append_checked(names, name, version, event)).events[-1]
            if not appended.is_new and any(each.id == event.id for each in session.events):
                return event
            session._storage_update_marker = f"{generation}:{max(version, appended.version)}"
            session.last_update_time = event.timestamp
            return self._commit_event_to_session(session, event)

    async def _get(self, app_name: str, user_id: str, session_id: str, config: GetSessionConfig) -> Session | None:
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        if config.num_recent_events is None:  # most sessions are of the first generation, and their events tell all
            (known, shared), found = await asyncio.gather(
                self._known(**names), self._read(names, SessionFold(), config)
            )
            is_current = known.generation == 1 and not found.is_deleted
        else:
            (known, shared), is_current = await self._known(**names), False
        if self._owned_by_user:  # the table was read for the tenant: only the log shows what the user may see
            known = SessionFold(known.generation)
        while not is_current:
            found = await self._read(names, known, config)
            is_current = not found.is_deleted
            known = SessionFold(known.generation + 1)
        if not found.version:
            return None
        session = _session(**names, known=found, shared=shared.merged(user_id))
        session.events = await self._adk_events(found)
        return session

    async def _read(self, names: dict[str, str], known: SessionFold, config: GetSessionConfig) -> SessionFold:
        """Return a session with the events that are wanted, given what the tables have of it."""
        caller = self._caller(names["user_id"])
        conversation_id = conversation_uuid(caller.tenant, conversation_name(**names, generation=known.generation))

        def read(types: tuple[str, ...] = (*TYPES, *TASK_EVENTS), **limits: Any) -> AsyncIterator[Event]:
            return self._store.read(conversation_id, types=types, tenant=caller.tenant, user=caller.user, **limits)

        count = config.num_recent_events
        if known.is_deleted:
            async for event in read(DELETIONS, backwards=True, limit=1):
                if event.event_type == "conversation.deleted":
                    return known
        if count is not None and config.after_timestamp is None and not known.is_rewound:
            found = SessionFold(known.generation, False, known.version, known.update_time, dict(known.state))
            async for event in read(after=known.version):
                found.add(event)
            recent = read(EVENTS, until_version=found.version, backwards=True, limit=count)
            found.events = [event async for event in recent][::-1]
            if not found.is_rewound and not any(map(is_imported, found.events)):
                if any(moved_events(_parts(event)) for event in found.events):
                    # Those of a message are before it, up to three for each of its parts.
                    first = found.events[0].version - 3 * len(_parts(found.events[0])) - 1
                    async for event in read(TASK_EVENTS, after=max(first, 0), until_version=found.version):
                        found.add(event)
                return found
        found = SessionFold(known.generation)
        for event in shown([event async for event in read()]):
            found.add(event)
        # An import appends messages before other events; among themselves, imported events are ordered by their times.
        imported = [event for event in found.events if is_imported(event)]
        found.events[: len(imported)] = sorted(imported, key=seconds_of)
        if (after := config.after_timestamp) is not None:
            found.events = [event for event in found.events if seconds_of(event) >= after]
        if count is not None:
            found.events = found.events[-count:] if count else []
        return found

    async def _append_checked(self, names: dict[str, str], name: str, version: int, event: AdkEvent) -> AppendResult:
        """Append an event to the conversation of a session, unless the session has changed since a version."""
        caller, occurrence = self._caller(names["user_id"]), 0
        while True:
            events = await self._events(names, name, event, occurrence)
            try:
                return await self._append(names["user_id"], name, events, version)
            except EventIdConflict:  # another event has the same id
                occurrence += 1
            except ConversationIsDeleted:
                raise SessionNotFoundError(f"Session {names['session_id']} not found.") from None
            except WrongExpectedVersion as error:
                if not error.actual:
                    raise SessionNotFoundError(f"Session {names['session_id']} not found.") from None
                changes = self._store.read(
                    conversation_uuid(caller.tenant, name),
                    after=version,
                    types=TYPES,
                    limit=1,
                    tenant=caller.tenant,
                    user=caller.user,
                )
                if [change async for change in changes]:
                    raise StaleSessionError(
                        f"The session {names['session_id']} has been modified in storage since it was loaded. "
                        "Please reload the session before appending more events."
                    ) from None
                version = error.actual

    async def _events(self, names: dict[str, str], name: str, event: AdkEvent, occurrence: int) -> list[NewEvent]:
        """Return the events of an event: those of tasks, then its own. Store its large files.

        Args:
            occurrence: the number of other events in the session that have the same id.
        """
        caller = self._caller(names["user_id"])
        conversation_id = conversation_uuid(caller.tenant, name)
        dumped = event.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        message = message_of(dumped, name)
        event_type = EVENT if message is None else "message.added"
        event_id = assigned_uuid(caller.tenant, conversation_id, event_type, event.id, occurrence)
        events: list[tuple[UUID, EventData]] = []
        files: set[bytes] = set()
        if message is None:
            events.append((event_id, ApplicationEvent(EVENT, dumped)))
        else:
            tasks = await tasks_of_calls(self._store, caller, conversation_id, answered_calls(message))
            events += task_events(message, event_id, tasks)
            for parts in lists_of_parts(message["parts"]):
                parts[:] = await store_files(self._store, parts, conversation_id)
                files |= files_in(parts)
            events.append((event_id, message_from_sent(message, given_id=message["messageId"] or None)))
        actor = names["user_id"] if event.author == "user" else event.author
        metadata = Metadata(occurred_at=read_time(event.timestamp))
        return [
            NewEvent(data, each, actor[:255], referring(metadata, files if each == event_id else ()))
            for each, data in events
        ]

    async def _adk_events(self, found: SessionFold) -> list[AdkEvent]:
        """Return google-adk's events, with their files."""
        parts = [_parts(event) for event in found.events if event.event_type != EVENT]
        if found.events:
            lists = [each for own in parts for each in lists_of_parts(own)]
            await load_files(self._store, lists, found.events[0].conversation_id)
        return [
            AdkEvent.model_validate(event.content if event.event_type == EVENT else event_of(event, found.moved))
            for event in found.events
        ]

    async def _revision(self, session: Session, names: dict[str, str]) -> tuple[int, int]:
        """Return generation and version of the session that a caller has.

        A session that comes from elsewhere has no marker: it must have the last event that is stored.
        """
        generation, _, version = (session._storage_update_marker or "").partition(":")
        if generation.isdecimal() and version.isdecimal():
            return int(generation), int(version)
        stored = await self._get(**names, config=GetSessionConfig(num_recent_events=1))
        if stored is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        last, own_last = ([event.id for event in each.events[-1:]] for each in (stored, session))
        if stored.last_update_time > session.last_update_time and last != own_last:
            raise StaleSessionError(
                f"The session {session.id} has been modified in storage since it was loaded. "
                "Please reload the session before appending more events."
            )
        session._storage_update_marker = stored._storage_update_marker
        return await self._revision(session, names)

    async def _generations(self, app_name: str, user_id: str, session_id: str) -> AsyncIterator[int]:
        """Yield the generations of a session: the first one; if it is deleted, those from the last known one on."""
        yield 1
        generation = max(2, (await self._known(app_name, user_id, session_id))[0].generation)
        while True:
            yield generation
            generation += 1

    async def _known(self, app_name: str, user_id: str, session_id: str) -> tuple[SessionFold, SharedState]:
        """Return what the tables have of a session, and the state that it shares."""
        caller = self._caller()
        given = {
            "tenant": caller.tenant,
            "app": app_name,
            "user": user_id,
            "session": session_id,
            "scopes": ["app", f"user:{user_id}"],
            "projections": [SESSIONS.name],
        }
        rows = await self._store.tables(caller, on_primary=True).fetch(_SESSION, given)
        known, values = SessionFold(), []
        for _, _, scope, key, value, position, generation, is_deleted, version, update_time, is_rewound in rows:
            if scope == "session":
                known = SessionFold(generation, is_deleted, version, update_time, value, is_rewound)
            elif scope is not None:
                values.append((scope, key, value, position))
        shared = SharedState(values)
        for change in await self._tail(caller, app_name, *rows[0][:2], shared=True):
            shared.add(change.user_id, change.delta, change.position)
        return known, shared

    async def _tail(self, caller: Caller, app_name: str, applied: int, last: int, *, shared: bool) -> list[Change]:
        """Return what the log has of the sessions of an application after a position.

        Args:
            applied: the position that the tables have applied.
            last: the last position of the log at that time.
            shared: only what changes the state that sessions share.
        """
        given = {"tenant": caller.tenant, "app": app_name, "applied": Int8(applied), "types": list(TYPES)}
        changes = [Change(*row) for row in await self._store.log(caller).fetch(_TAIL, given | {"shared": shared})]
        if last - applied > LONGEST_LAG and self._filling is None:
            self._filling = independent_task(self._fill())
        return changes

    async def _fill(self) -> None:
        """Apply the log to the tables, as a worker does."""
        try:
            await catch_up(self._store, [SESSIONS])
        except EventStoreError as error:
            _logger.warning("the tables of google-adk's sessions are far behind, which makes reads slow: %s", error)
            if isinstance(error, PermissionDenied):
                return  # and does not try again
        self._filling = None


def _parts(event: Event) -> list[Any]:
    parts = event.content.get("parts") if event.event_type == "message.added" else None
    return parts if isinstance(parts, list) else []


def _session(app_name: str, user_id: str, session_id: str, known: SessionFold, shared: Json) -> Session:
    session = Session(
        id=session_id,
        app_name=app_name,
        user_id=user_id,
        state=known.state | shared,
        last_update_time=known.update_time,
    )
    session._storage_update_marker = known.marker
    return session


async def _create_tables(store: EventStore) -> None:
    await create_missing_tables(store, [SESSIONS])


def register_services() -> None:
    """Register both services for URIs: ``eventstore:``, or ``eventstore://LOGIN@HOST:PORT/DATABASE?tenant=NAME``.

    Call it in the ``services.py`` of the folder of the agents; then ``adk web --session_service_uri`` and
    ``--artifact_service_uri`` accept them. The first form takes the settings from the environment.
    """
    registry = get_service_registry()
    registry.register_session_service(SCHEME, lambda uri, **_: EventStoreSessionService(settings_of_uri(uri)))
    registry.register_artifact_service(SCHEME, lambda uri, **_: EventStoreArtifactService(settings_of_uri(uri)))


_SESSION, _SESSIONS, _SHARED_STATES = (
    query("agent_manager.adapters", name).replace("{position}", POSITION_OF_ALL_PARTITIONS)
    for name in ("adk_session", "adk_sessions", "adk_shared_states")
)
_TAIL = query("agent_manager.adapters", "adk_tail")
