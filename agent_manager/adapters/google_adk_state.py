"""Sessions of google-adk as their events make them: a session's own state, and the state that sessions share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from google.adk.sessions.state import State

from agent_manager.a2a import Json
from agent_manager.adapters.google_adk_events import ADK, EVENT, STATE, TASK_EVENTS
from agent_manager.importers.stored import EVENT_ID, MIGRATED
from eventstore import Event

EVENTS = ("message.added", EVENT)
"""The types of the events that are events of google-adk too."""
DELETIONS = ("conversation.deleted", "conversation.reactivated")
TYPES = (*EVENTS, STATE, "conversation.created", "conversation.rewound", *DELETIONS)
"""The types of the events that a session consists of. Others, such as a new name of its conversation, do not make a
writer stale."""


class Change(NamedTuple):
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
class SessionFold:
    """A session as the tables have it, or as far as its events were read.

    Attributes:
        version: that of the last event of it; 0 if it has none.
        is_rewound: whether the conversation went back to an earlier version; what it was then is in the log alone.
        moved: the contents of the events that hold what messages refer to, by their ids.
    """

    generation: int = 1
    is_deleted: bool = False
    version: int = 0
    update_time: float = 0.0
    state: Json = field(default_factory=dict)
    is_rewound: bool = False
    events: list[Event] = field(default_factory=list)
    moved: Json = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Add an event of its conversation."""
        if event.event_type in TASK_EVENTS:
            self.moved[str(event.raw_metadata.get(EVENT_ID, event.id))] = event.content
            return
        own = _own_form(event)
        self._add(event.event_type, event.version, seconds_of(event, own), _delta(event, own))
        if event.event_type in EVENTS and not (event.event_type == EVENT and event.is_erased):
            self.events.append(event)

    def add_changes(self, changes: Iterable[Change]) -> None:
        """Add those changes of it that are not known."""
        for change in changes:
            if change.version > self.version:
                self._add(change.event_type, change.version, change.seconds, change.delta)

    def _add(self, event_type: str, version: int, seconds: float, delta: Any) -> None:
        self.version = version
        if event_type in DELETIONS:
            self.is_deleted = event_type == "conversation.deleted"
        elif event_type == "conversation.rewound":
            self.is_rewound = True
        else:
            self.update_time = seconds
            self.state |= own_state(delta)

    @property
    def marker(self) -> str:
        """The revision that google-adk keeps with a session."""
        return f"{self.generation}:{self.version}"


class SharedState:
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


def _own_form(event: Event) -> Json:
    """Return what google-adk has of an event, beside its content; empty if it is not google-adk's."""
    own = event.content
    for name in ("metadata", ADK) if event.event_type == "message.added" else ():
        own = own.get(name) if isinstance(own, dict) else None
    return own if event.event_type in EVENTS and isinstance(own, dict) else {}


def _delta(event: Event, own: Json) -> Any:
    """Return the changes of the state that an event makes; a dict, unless the event is of no known form."""
    actions = own.get("actions")
    if event.event_type == STATE:
        return event.content
    return actions.get("state_delta") if isinstance(actions, dict) else None


def seconds_of(event: Event, own: Json | None = None) -> float:
    """Return the time of an event as google-adk has it."""
    seconds = (_own_form(event) if own is None else own).get("timestamp")
    return seconds if isinstance(seconds, int | float) else event.occurred_at.timestamp()


def own_state(delta: Any) -> Json:
    """Return the changes that concern the session alone."""
    shared = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
    return {key: value for key, value in delta.items() if not key.startswith(shared)} if isinstance(delta, dict) else {}


def is_imported(event: Event) -> bool:
    return MIGRATED in event.raw_metadata
