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
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID
from weakref import WeakValueDictionary

from google.adk.artifacts import artifact_util
from google.adk.artifacts.base_artifact_service import ArtifactVersion, BaseArtifactService, ensure_part
from google.adk.cli.service_registry import get_service_registry
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.input_validation_error import InputValidationError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event as AdkEvent
from google.adk.platform import time as platform_time
from google.adk.platform import uuid as platform_uuid
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig, ListSessionsResponse
from google.adk.sessions.session import Session
from google.adk.sessions.state import State
from google.genai import types
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8
from pydantic_core import to_jsonable_python

from agent_manager.a2a import Json
from agent_manager.adapters.blobs import load_blob, load_files, store_blob, store_files
from agent_manager.adapters.google_adk_events import (
    ADK,
    EVENT,
    SESSIONS,
    STATE,
    conversation_name,
    event_of,
    lists_of_parts,
    message_of,
)
from agent_manager.importers.source import read_time
from agent_manager.importers.stored import MIGRATED
from agent_manager.storage import ServerLog
from eventstore import (
    EXISTS,
    NO_STREAM,
    AppendResult,
    ApplicationEvent,
    Caller,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    Event,
    EventData,
    EventStore,
    ExpectedVersion,
    Metadata,
    NewEvent,
    Settings,
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
    SettingsError,
    StoreClosed,
    WrongExpectedVersion,
)
from eventstore.ids import assigned_uuid
from eventstore.json_text import from_json
from eventstore.read import RawRows
from eventstore.sync import SyncEventStore
from projections import catch_up
from projections.custom_projections import create_missing_tables
from projections.status import POSITION_OF_ALL_PARTITIONS

SCHEME = "eventstore"
"""The scheme of the URIs of both services."""
ARTIFACT = "adk.artifact"
"""The type of the application event of a version of an artifact; without ``version``, the artifact was deleted."""

_EVENTS = ("message.added", EVENT)
_DELETIONS = ("conversation.deleted", "conversation.reactivated")
_TYPES = (*_EVENTS, STATE, "conversation.created", *_DELETIONS)
"""The types of the events that a session consists of. Others, such as a new name of its conversation, do not make a
writer stale."""

LONGEST_LAG = 500
"""Positions that the tables may be behind the log before the service fills them. Reading so many events takes about a
millisecond; a worker that follows the log is nearer to its end, unless it has much to do."""

_logger = logging.getLogger("eventstore.google_adk")

T = TypeVar("T")


def register_services() -> None:
    """Register both services for URIs: ``eventstore:``, or ``eventstore://LOGIN@HOST:PORT/DATABASE?tenant=NAME``.

    Call it in the ``services.py`` of the folder of the agents; then ``adk web --session_service_uri`` and
    ``--artifact_service_uri`` accept them. The first form takes the settings from the environment.
    """
    registry = get_service_registry()
    registry.register_session_service(SCHEME, lambda uri, **_: EventStoreSessionService(_settings(uri)))
    registry.register_artifact_service(SCHEME, lambda uri, **_: EventStoreArtifactService(_settings(uri)))


def _settings(uri: str) -> Settings:
    parts = urlsplit(uri)
    parameters = dict(parse_qsl(parts.query))
    values = {"tenant": parameters.pop("tenant")} if "tenant" in parameters else {}
    if parts.scheme != SCHEME or (parts.path.strip("/") and not parts.netloc):
        raise SettingsError(f"the URI of google-adk's services: give {SCHEME}: or {SCHEME}://LOGIN@HOST:PORT/DATABASE")
    if parts.netloc:
        values["database_url"] = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(parameters)))
    return Settings(**values)


class _Service:
    """A service on a store: one that the caller has opened, or one of its own.

    A store of its own runs in its own thread, so that any event loop can use it; it is opened when it is first used.
    """

    def __init__(self, store: EventStore | Settings | None = None, *, owned_by_user: bool = False) -> None:
        self._own = None if isinstance(store, EventStore) else SyncEventStore(store)
        self._store = store if isinstance(store, EventStore) else self._own.asynchronous  # type: ignore[union-attr]
        self._owned_by_user = owned_by_user
        self._is_open = False
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self._run(self._open())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the service's own store; a store that was given stays open."""
        if self._own is not None:
            await asyncio.to_thread(self._own.close)

    async def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await (coroutine if self._own is None else self._own.portal.run(coroutine))

    async def _open(self) -> None:
        async with self._opening:
            if not self._is_open:
                if self._own is not None:
                    await self._store.open()
                await self._prepare()
                self._is_open = True

    async def _prepare(self) -> None:
        """Create in the open store what the service needs."""

    def _caller(self, user_id: str | None = None) -> Caller:
        return self._store.caller(user=user_id if self._owned_by_user else None)

    async def _append(self, user_id: str, name: str, events: list[NewEvent], expected: ExpectedVersion) -> AppendResult:
        """Append to the conversation with a name, again if the connection was lost."""
        caller = self._caller(user_id)
        log = ServerLog(self._store).acting_for(caller.user, "", lambda events: None)
        return await log.append(conversation_uuid(caller.tenant, name), events, expected)


class _Change(NamedTuple):
    """An event of a session after the position that the tables have applied.

    Attributes:
        timestamp: the event's time, if it is one of google-adk.
        delta: the changes of the state that it makes.
        names: of the session.
    """

    conversation_id: UUID
    version: int
    position: int
    event_type: str
    occurred_at: datetime
    timestamp: Any
    delta: Any
    names: Json

    @property
    def user_id(self) -> str:
        """The name of the session's user."""
        return str(self.names.get("user_id"))

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return str(self.names.get("session_id"))

    @property
    def generation(self) -> int:
        """The generation of the session."""
        generation = self.names.get("generation")
        return generation if isinstance(generation, int) else 1

    @property
    def seconds(self) -> float:
        """The time of the event as google-adk has it."""
        return self.timestamp if isinstance(self.timestamp, int | float) else self.occurred_at.timestamp()


@dataclass(slots=True)
class _Known:
    """A session as the tables have it, or as far as its events were read.

    Attributes:
        version: that of the last event of it; 0 if it has none.
    """

    generation: int = 1
    is_deleted: bool = False
    version: int = 0
    update_time: float = 0.0
    state: Json = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Add an event of its conversation."""
        own = _own_form(event)
        self._add(event.event_type, event.version, _seconds(event, own), _delta(event, own))
        if event.event_type in _EVENTS and not (event.event_type == EVENT and event.is_erased):
            self.events.append(event)

    def add_changes(self, changes: Iterable[_Change]) -> None:
        """Add those changes of it that are not known."""
        for change in changes:
            if change.version > self.version:
                self._add(change.event_type, change.version, change.seconds, change.delta)

    def _add(self, event_type: str, version: int, seconds: float, delta: Any) -> None:
        self.version = version
        if event_type in _DELETIONS:
            self.is_deleted = event_type == "conversation.deleted"
        else:
            self.update_time = seconds
            self.state |= _own_state(delta)

    @property
    def marker(self) -> str:
        """The revision that google-adk keeps with a session."""
        return f"{self.generation}:{self.version}"


class _SharedState:
    """The values that the sessions of an application share, each with the position that it was set at."""

    def __init__(self, rows: Iterable[tuple[str, str, Any, int]] = ()) -> None:
        self._values: dict[str, dict[str, tuple[int, Any]]] = defaultdict(dict)
        for scope, key, value, position in rows:
            self._set(scope, key, value, position)

    def add(self, user_id: str, delta: Any, position: int) -> None:
        """Add the changes that an event of a session of a user makes."""
        for key, value in delta.items() if isinstance(delta, dict) else ():
            if key.startswith(State.APP_PREFIX):
                self._set("app", key.removeprefix(State.APP_PREFIX), value, position)
            elif key.startswith(State.USER_PREFIX):
                self._set(f"user:{user_id}", key.removeprefix(State.USER_PREFIX), value, position)

    def _set(self, scope: str, key: str, value: Any, position: int) -> None:
        values = self._values[scope]
        if key not in values or position >= values[key][0]:
            values[key] = (position, value)

    def of_user(self, user_id: str) -> Json:
        """Return a user's values by their names without a prefix."""
        return {key: value for key, (_, value) in self._values.get(f"user:{user_id}", {}).items()}

    def merged(self, user_id: str) -> Json:
        """Return the values that a session of a user has beside its own, with their prefixes."""
        app = {State.APP_PREFIX + key: value for key, (_, value) in self._values.get("app", {}).items()}
        return app | {State.USER_PREFIX + key: value for key, value in self.of_user(user_id).items()}


class EventStoreSessionService(_Service, BaseSessionService):
    """Sessions of google-adk in the event store.

    Args:
        store: an open store; it stays the caller's. Or the settings of a store of the service's own; from the
            environment and ``.env`` if left out.
        owned_by_user: each session belongs to its user in the store too: row-level security hides it from other users,
            and users of the HTTP API see their own. Sessions that were imported or stored without it belong to the
            tenant, and are not found with it.
    """

    def __init__(self, store: EventStore | Settings | None = None, *, owned_by_user: bool = False) -> None:
        super().__init__(store, owned_by_user=owned_by_user)
        self._filling: asyncio.Task[None] | None = None
        self._appending: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    async def _prepare(self) -> None:
        await create_missing_tables(self._store, [SESSIONS])

    async def close(self) -> None:
        """Close the service's own store; a store that was given stays open."""
        with suppress(StoreClosed):
            await self._run(self._stop_filling())
        await super().close()

    async def create_session(
        self, *, app_name: str, user_id: str, state: dict[str, Any] | None = None, session_id: str | None = None
    ) -> Session:
        """Create a session.

        Raises:
            AlreadyExistsError: the user has a session with this id in the application.
        """
        return await self._run(self._create(app_name, user_id, state or {}, session_id))

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """Return a session with all its events, or with some of them; None if it does not exist."""
        return await self._run(self._get(app_name, user_id, session_id.strip(), config or GetSessionConfig()))

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """Return the sessions of an application or of one of its users, without events; the last updated one last."""
        return await self._run(self._list(app_name, user_id))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Hide a session from all reads. What it set of the state of its user and application remains."""
        await self._run(self._delete(app_name, user_id, session_id.strip()))

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state that the sessions of a user share, without prefixes."""
        return await self._run(self._user_state(app_name, user_id))

    async def append_event(self, session: Session, event: AdkEvent) -> AdkEvent:
        """Append an event to a session, durably. Appending an event again is harmless.

        Raises:
            StaleSessionError: the session was changed by another writer since it was read.
            SessionNotFoundError: it does not exist, or was deleted.
            InvalidEvent: something in the event cannot be stored.
            EventTooLarge: it is larger than the limit, without its files.
        """
        return event if event.partial else await self._run(self._append_event(session, event))

    async def _create(self, app_name: str, user_id: str, state: Json, session_id: str | None) -> Session:
        await self._open()
        session_id = (session_id or "").strip() or platform_uuid.new_uuid()
        state = {name: value for name, value in state.items() if not name.startswith(State.TEMP_PREFIX)}
        state = to_jsonable_python(state, serialize_unknown=True)
        created_at = datetime.fromtimestamp(platform_time.get_time(), UTC)
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        async for generation in self._generations(**names):
            name = conversation_name(**names, generation=generation)
            adk = names | ({"generation": generation} if generation > 1 else {})
            data: list[EventData] = [ConversationCreated(given_id=name, metadata={ADK: adk})]
            if state:
                data.append(ApplicationEvent(STATE, state))
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
            shared.add(user_id, state, result.position)
            known = _Known(generation, False, result.version, created_at.timestamp(), _own_state(state))
            return _session(**names, known=known, shared=shared.merged(user_id))
        raise AssertionError("there is always another generation")

    async def _get(self, app_name: str, user_id: str, session_id: str, config: GetSessionConfig) -> Session | None:
        await self._open()
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        if config.num_recent_events is None:  # most sessions are of the first generation, and their events tell all
            (known, shared), found = await asyncio.gather(self._known(**names), self._read(names, _Known(), config))
            is_current = known.generation == 1 and not found.is_deleted
        else:
            (known, shared), is_current = await self._known(**names), False
        if self._owned_by_user:  # the table was read for the tenant: only the log shows what the user may see
            known = _Known(known.generation)
        while not is_current:
            found = await self._read(names, known, config)
            is_current = not found.is_deleted
            known = _Known(known.generation + 1)
        if not found.version:
            return None
        session = _session(**names, known=found, shared=shared.merged(user_id))
        session.events = await self._adk_events(found.events)
        return session

    async def _read(self, names: dict[str, str], known: _Known, config: GetSessionConfig) -> _Known:
        """Return a session with the events that are wanted, given what the tables have of it."""
        caller = self._caller(names["user_id"])
        conversation_id = conversation_uuid(caller.tenant, conversation_name(**names, generation=known.generation))

        def read(types: tuple[str, ...] = _TYPES, **limits: Any) -> AsyncIterator[Event]:
            return self._store.read(conversation_id, types=types, tenant=caller.tenant, user=caller.user, **limits)

        count = config.num_recent_events
        if known.is_deleted:
            async for event in read(_DELETIONS, backwards=True, limit=1):
                if event.event_type == "conversation.deleted":
                    return known
        if count is not None and config.after_timestamp is None:
            found = _Known(known.generation, False, known.version, known.update_time, dict(known.state))
            async for event in read(after=known.version):
                found.add(event)
            recent = read(_EVENTS, until_version=found.version, backwards=True, limit=count)
            found.events = [event async for event in recent][::-1]
            if not any(map(_is_imported, found.events)):
                return found
        found = _Known(known.generation)
        async for event in read():
            found.add(event)
        # An import appends messages before other events; among themselves, imported events are ordered by their times.
        imported = [event for event in found.events if _is_imported(event)]
        found.events[: len(imported)] = sorted(imported, key=_seconds)
        if (after := config.after_timestamp) is not None:
            found.events = [event for event in found.events if _seconds(event) >= after]
        if count is not None:
            found.events = found.events[-count:] if count else []
        return found

    async def _list(self, app_name: str, user_id: str | None) -> ListSessionsResponse:
        await self._open()
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
        shared = _SharedState(row[2:] for row in shared_rows if row[2] is not None)
        for change in shared_tail:
            shared.add(change.user_id, change.delta, change.position)
        changes: dict[UUID, list[_Change]] = defaultdict(list)
        for change in tail:
            if user_id in (None, change.user_id):
                changes[change.conversation_id].append(change)
        merged = {owner: shared.merged(owner) for owner in {row[3] for row in rows} | {each.user_id for each in tail}}
        sessions = []
        for _, _, conversation_id, owner, session_id, state, update_time, version, generation in rows:
            if conversation_id is not None:
                known = _Known(generation, False, version, update_time, from_json(state[1:]))
                known.add_changes(changes.pop(conversation_id, ()))
                if not known.is_deleted:
                    sessions.append(_session(app_name, owner, session_id, known, merged[owner]))
        for first, *more in changes.values():
            if first.version == 1:
                known = _Known(first.generation)
                known.add_changes([first, *more])
                if not known.is_deleted:
                    sessions.append(_session(app_name, first.user_id, first.session_id, known, merged[first.user_id]))
            elif any(change.event_type == "conversation.reactivated" for change in (first, *more)):
                config = GetSessionConfig(num_recent_events=0)
                if (session := await self._get(app_name, first.user_id, first.session_id, config)) is not None:
                    sessions.append(session)
        sessions.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=sessions)

    async def _delete(self, app_name: str, user_id: str, session_id: str) -> None:
        await self._open()
        names = {"app_name": app_name, "user_id": user_id, "session_id": session_id}
        async for generation in self._generations(**names):
            name = conversation_name(**names, generation=generation)
            try:
                await self._append(user_id, name, [NewEvent(ConversationDeleted(), actor=user_id[:255])], EXISTS)
            except ConversationIsDeleted:
                continue
            except WrongExpectedVersion:
                pass  # it does not exist
            return

    async def _user_state(self, app_name: str, user_id: str) -> Json:
        await self._open()
        _, shared = await self._known(app_name, user_id, "")
        return shared.of_user(user_id)

    async def _append_event(self, session: Session, event: AdkEvent) -> AdkEvent:
        await self._open()
        names = {"app_name": session.app_name, "user_id": session.user_id, "session_id": session.id}
        lock = self._appending.setdefault((session.app_name, session.user_id, session.id), asyncio.Lock())
        async with lock:  # branches of one agent append to the same session at the same time
            generation, version = await self._revision(session, names)
            self._apply_temp_state(session, event)
            event = self._trim_temp_delta_state(event)
            name = conversation_name(**names, generation=generation)
            appended = (await self._append_checked(names, name, version, event)).events[0]
            if not appended.is_new and any(each.id == event.id for each in session.events):
                return event
            session._storage_update_marker = f"{generation}:{max(version, appended.version)}"
            session.last_update_time = event.timestamp
            return self._commit_event_to_session(session, event)

    async def _append_checked(self, names: dict[str, str], name: str, version: int, event: AdkEvent) -> AppendResult:
        """Append an event to the conversation of a session, unless the session has changed since a version."""
        caller, occurrence = self._caller(names["user_id"]), 0
        conversation_id = conversation_uuid(caller.tenant, name)
        data = await self._data(name, event)
        actor = names["user_id"] if event.author == "user" else event.author
        metadata = Metadata(occurred_at=read_time(event.timestamp))
        while True:
            event_id = assigned_uuid(caller.tenant, conversation_id, data.event_type, event.id, occurrence)
            new = NewEvent(data, event_id, actor[:255], metadata)
            try:
                return await self._append(names["user_id"], name, [new], version)
            except EventIdConflict:  # another event has the same id
                occurrence += 1
            except ConversationIsDeleted:
                raise SessionNotFoundError(f"Session {names['session_id']} not found.") from None
            except WrongExpectedVersion as error:
                if not error.actual:
                    raise SessionNotFoundError(f"Session {names['session_id']} not found.") from None
                changes = self._store.read(
                    conversation_id, after=version, types=_TYPES, limit=1, tenant=caller.tenant, user=caller.user
                )
                if [change async for change in changes]:
                    raise StaleSessionError(
                        f"The session {names['session_id']} has been modified in storage since it was loaded. "
                        "Please reload the session before appending more events."
                    ) from None
                version = error.actual

    async def _data(self, name: str, event: AdkEvent) -> EventData:
        """Return the content of an event, and store its large files."""
        dumped = event.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        message = message_of(dumped, name)
        if message is None:
            return ApplicationEvent(EVENT, dumped)
        for parts in lists_of_parts(message["parts"]):
            parts[:] = await store_files(self._store, parts)
        return message_from_sent(message, given_id=message["messageId"] or None)

    async def _adk_events(self, events: list[Event]) -> list[AdkEvent]:
        """Return google-adk's events, with their files."""
        parts = [event.content.get("parts") for event in events if event.event_type != EVENT]
        lists = [each for own in parts if isinstance(own, list) for each in lists_of_parts(own)]
        await load_files(self._store, lists)
        return [
            AdkEvent.model_validate(event.content if event.event_type == EVENT else event_of(event)) for event in events
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

    async def _known(self, app_name: str, user_id: str, session_id: str) -> tuple[_Known, _SharedState]:
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
        known, values = _Known(), []
        for _, _, scope, key, value, position, generation, is_deleted, version, update_time in rows:
            if scope == "session":
                known = _Known(generation, is_deleted, version, update_time, value)
            elif scope is not None:
                values.append((scope, key, value, position))
        shared = _SharedState(values)
        for change in await self._tail(caller, app_name, *rows[0][:2], shared=True):
            shared.add(change.user_id, change.delta, change.position)
        return known, shared

    async def _tail(self, caller: Caller, app_name: str, applied: int, last: int, *, shared: bool) -> list[_Change]:
        """Return what the log has of the sessions of an application after a position.

        Args:
            applied: the position that the tables have applied.
            last: the last position of the log at that time.
            shared: only what changes the state that sessions share.
        """
        given = {"tenant": caller.tenant, "app": app_name, "applied": Int8(applied), "types": list(_TYPES)}
        changes = [_Change(*row) for row in await self._store.log(caller).fetch(_TAIL, given | {"shared": shared})]
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

    async def _stop_filling(self) -> None:
        if self._filling is not None:
            await cancel_and_wait([self._filling])


def _session(app_name: str, user_id: str, session_id: str, known: _Known, shared: Json) -> Session:
    session = Session(
        id=session_id,
        app_name=app_name,
        user_id=user_id,
        state=known.state | shared,
        last_update_time=known.update_time,
    )
    session._storage_update_marker = known.marker
    return session


def _own_form(event: Event) -> Json:
    """Return what google-adk has of an event, beside its content; empty if it is not google-adk's."""
    own = event.content
    for name in ("metadata", ADK) if event.event_type == "message.added" else ():
        own = own.get(name) if isinstance(own, dict) else None
    return own if event.event_type in _EVENTS and isinstance(own, dict) else {}


def _delta(event: Event, own: Json) -> Any:
    """Return the changes of the state that an event makes; a dict, unless the event is of no known form."""
    actions = own.get("actions")
    if event.event_type == STATE:
        return event.content
    return actions.get("state_delta") if isinstance(actions, dict) else None


def _seconds(event: Event, own: Json | None = None) -> float:
    """Return the time of an event as google-adk has it."""
    seconds = (_own_form(event) if own is None else own).get("timestamp")
    return seconds if isinstance(seconds, int | float) else event.occurred_at.timestamp()


def _own_state(delta: Any) -> Json:
    """Return the changes that concern the session alone."""
    shared = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
    return {key: value for key, value in delta.items() if not key.startswith(shared)} if isinstance(delta, dict) else {}


def _is_imported(event: Event) -> bool:
    return MIGRATED in event.raw_metadata


class EventStoreArtifactService(_Service, BaseArtifactService):
    """Artifacts of google-adk in the event store: their bytes in the table of files, each version an event.

    The versions of a session's artifacts are a conversation beside that of the session, and so are those of a user's.
    As with google-adk's own services, they remain if the session is deleted.

    Args:
        store, owned_by_user: see :class:`EventStoreSessionService`.
    """

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Store a version of an artifact, durably, and return its number: 0, 1, 2 and so on.

        Raises:
            InputValidationError: the artifact is neither a file nor a text nor a reference that may be followed, or it
                is not of a user and no session is given.
            BlobTooLarge: its bytes are more than the limit.
        """
        place = _place(app_name, user_id, session_id, filename)
        return await self._run(self._save(place, filename, ensure_part(artifact), custom_metadata or {}))

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> types.Part | None:
        """Return a version of an artifact, the latest one if left out; None if it does not exist."""
        for remaining in range(_MAX_REFERENCES, -1, -1):
            place = _place(app_name, user_id, session_id, filename)
            part = await self._run(self._load(place, filename, version))
            if part is None or part in (types.Part(), _REWOUND):
                return None
            if not artifact_util.is_artifact_ref(part):
                return part
            assert part.file_data is not None
            target = artifact_util.resolve_artifact_reference(
                file_uri=str(part.file_data.file_uri),
                app_name=app_name,
                user_id=user_id,
                session_id=session_id,
                remaining_depth=remaining,
            )
            session_id, filename, version = target.session_id, target.filename, target.version
        raise AssertionError("google-adk refuses the last reference")

    async def list_artifact_keys(self, *, app_name: str, user_id: str, session_id: str | None = None) -> list[str]:
        """Return the names of the artifacts of a user, and of a session if one is given."""
        sessions = [None] if session_id is None else [None, session_id]
        places = [_place(app_name, user_id, each, "" if each else State.USER_PREFIX) for each in sessions]
        return await self._run(self._keys(places))

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Hide all versions of an artifact; the next one that is stored is version 0 again."""
        await self._run(self._delete(_place(app_name, user_id, session_id, filename), filename))

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """Return the numbers of the versions of an artifact."""
        versions = await self._run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        return list(range(len(versions)))

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """Return what is known of each version of an artifact, beside its bytes."""
        stored = await self._run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        return [_artifact_version(each) for each in stored]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """Return what is known of a version of an artifact, the latest one if left out; None if it does not exist."""
        stored = await self._run(self._versions(_place(app_name, user_id, session_id, filename), filename))
        found = _chosen(stored, version)
        return None if found is None else _artifact_version(found)

    async def _save(self, place: _Place, filename: str, part: types.Part, custom_metadata: Json) -> int:
        await self._open()
        payload, mime_type = None, None
        if part.inline_data is not None:
            payload, mime_type = part.inline_data.data or b"", part.inline_data.mime_type
        elif part.text is not None:
            payload, mime_type = part.text.encode(), "text/plain"
        elif part.file_data is None:
            raise InputValidationError("Not supported artifact type.")
        elif artifact_util.is_artifact_ref(part):  # its type is that of the artifact that it refers to
            place.check_reference(str(part.file_data.file_uri))
        else:
            mime_type = part.file_data.mime_type
        rest = part.model_dump(mode="json", exclude_none=True, exclude={"inline_data": {"data"}, "text": True})
        content: Json = {"filename": filename, "part": rest}
        if payload is not None:
            content["sha256"] = (await store_blob(self._store, payload)).hex()
        while True:
            head = await self._head(place)
            number = len(await self._versions(place, filename))
            version = ArtifactVersion(
                version=number,
                canonical_uri=artifact_util.get_artifact_uri(
                    place.app_name, place.user_id, filename, number, place.session_id
                ),
                custom_metadata=custom_metadata,
                mime_type=mime_type,
            )
            data = ApplicationEvent(ARTIFACT, content | version.model_dump(mode="json", exclude_none=True))
            if await self._added(place, data, head):
                return number

    async def _delete(self, place: _Place, filename: str) -> None:
        await self._open()
        while True:
            head = await self._head(place)
            if not await self._versions(place, filename):
                return
            if await self._added(place, ApplicationEvent(ARTIFACT, {"filename": filename}), head):
                return

    async def _added(self, place: _Place, data: EventData, head: int) -> bool:
        """Append an event to the conversation of a place; return whether nobody has appended to it since a version."""
        events = [NewEvent(data, actor=place.user_id[:255])]
        if not head:
            created = ConversationCreated(given_id=place.name, metadata={"adk_artifacts": place.names})
            # Archived, so that lists of active conversations leave it out: it has no messages.
            events = [NewEvent(each, actor=place.user_id[:255]) for each in (created, ConversationArchived())] + events
        try:
            await self._append(place.user_id, place.name, events, head or NO_STREAM)
        except WrongExpectedVersion:
            return False
        return True

    async def _load(self, place: _Place, filename: str, version: int | None) -> types.Part | None:
        await self._open()
        found = _chosen(await self._versions(place, filename), version)
        if found is None:
            return None
        part = types.Part.model_validate(found["part"])
        if "sha256" in found:
            payload = await load_blob(self._store, bytes.fromhex(found["sha256"]))
            if part.inline_data is None:
                part.text = payload.decode()
            else:
                part.inline_data.data = payload
        return part

    async def _keys(self, places: list[_Place]) -> list[str]:
        await self._open()
        names: set[str] = set()
        for place in places:
            for content in await self._stored(place):
                (names.add if "version" in content else names.discard)(content["filename"])
        return sorted(names)

    async def _versions(self, place: _Place, filename: str) -> list[Json]:
        """Return the versions of an artifact."""
        await self._open()
        versions: list[Json] = []
        for content in await self._stored(place, filename):
            versions = [*versions, content] if "version" in content else []
        return versions

    async def _stored(self, place: _Place, filename: str | None = None) -> list[Json]:
        """Return the contents of the events of one artifact, or of all, in order."""
        return [content for (content,) in await self._fetch(_ARTIFACT_EVENTS, place, filename=filename)]

    async def _head(self, place: _Place) -> int:
        """Return the version of the conversation of a place; 0 if it has no artifacts."""
        return next((version for (version,) in await self._fetch(_HEAD, place)), 0)

    async def _fetch(self, text: str, place: _Place, **more: Any) -> list[TupleRow]:
        caller = self._caller(place.user_id)
        given = {"tenant": caller.tenant, "conversation_id": conversation_uuid(caller.tenant, place.name)}
        return await self._store.log(caller).fetch(text, given | more)


_MAX_REFERENCES = 5
"""How many references are followed from one artifact to the next; as many as google-adk's own services do."""
_REWOUND = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))
"""The artifact that google-adk stores when it rewinds a session to a time at which the artifact did not exist."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where artifacts belong: to a session, or to a user."""

    app_name: str
    user_id: str
    session_id: str | None

    @property
    def names(self) -> Json:
        """The names as metadata of the conversation."""
        own = {} if self.session_id is None else {"session_id": self.session_id}
        return {"app_name": self.app_name, "user_id": self.user_id, **own}

    @property
    def name(self) -> str:
        """The id of the conversation with the versions of the artifacts; no session has it."""
        session = "user" if self.session_id is None else f"session/{self.session_id.replace('/', '%2F')}"
        return f"{conversation_name(self.app_name, self.user_id, 'artifacts')}/{session}"

    def check_reference(self, uri: str) -> None:
        """Raise an error unless an artifact of this place may refer to the one that a URI names."""
        target = artifact_util.parse_artifact_uri(uri)
        if target is None:
            raise InputValidationError(f"Invalid artifact reference URI: {uri}")
        artifact_util.validate_artifact_reference_scope(
            app_name=self.app_name, user_id=self.user_id, session_id=self.session_id, parsed_uri=target
        )


def _place(app_name: str, user_id: str, session_id: str | None, filename: str) -> _Place:
    """Return where an artifact belongs.

    Raises:
        InputValidationError: a name is not one that all services of google-adk accept, or no session is given.
    """
    artifact_util.validate_path_segment(app_name, "app_name")
    artifact_util.validate_path_segment(user_id, "user_id")
    if filename.startswith(State.USER_PREFIX):
        return _Place(app_name, user_id, None)
    if session_id is None:
        raise InputValidationError("Session ID must be provided for session-scoped artifacts.")
    artifact_util.validate_path_segment(session_id, "session_id")
    return _Place(app_name, user_id, session_id)


def _chosen(versions: list[Json], version: int | None) -> Json | None:
    if version is None:
        return versions[-1] if versions else None
    return versions[version] if 0 <= version < len(versions) else None


def _artifact_version(content: Json) -> ArtifactVersion:
    members = ("version", "canonical_uri", "custom_metadata", "create_time", "mime_type")
    return ArtifactVersion(**{name: content[name] for name in members if name in content})


_SESSION, _SESSIONS, _SHARED_STATES = (
    query("agent_manager.adapters", name).replace("{position}", POSITION_OF_ALL_PARTITIONS)
    for name in ("adk_session", "adk_sessions", "adk_shared_states")
)
_TAIL, _ARTIFACT_EVENTS, _HEAD = (
    query("agent_manager.adapters", name) for name in ("adk_tail", "adk_artifact_events", "adk_head")
)
