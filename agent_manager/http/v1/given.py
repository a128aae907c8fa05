"""Events as a request gives them: by type and content, and read more strictly than what a newer version wrote."""

from __future__ import annotations

from uuid import UUID

from pydantic import ValidationError

from agent_manager.http.models.events import EventIn
from eventstore import ApplicationEvent, EventData, Metadata, NewEvent
from eventstore.errors import InvalidEvent
from eventstore.vocabulary import BUILT_IN, RESERVED_PREFIXES


def new_event(given: EventIn, path: str, new_id: UUID) -> NewEvent:
    """The event to append.

    Args:
        path: how errors call it.
        new_id: its id, unless it names one itself.

    Raises:
        InvalidEvent: it has not the shape of its type; names where.
    """
    try:
        data = _data(given)
        metadata = Metadata(**(given.metadata or {}))
    except InvalidEvent as error:
        raise InvalidEvent(f"{path}.{error.path}", error.reason) from None
    return NewEvent(data, given.id or new_id, given.actor, metadata)


def _data(given: EventIn) -> EventData:
    if not given.event_type.startswith(RESERVED_PREFIXES):
        return ApplicationEvent(given.event_type, given.content)
    if not isinstance(given.content, dict):
        raise InvalidEvent("content", f"is no object, which that of {given.event_type!r} is")
    try:
        data: EventData = BUILT_IN.validate_python({**given.content, "event_type": given.event_type})
    except ValidationError:
        raise InvalidEvent("event_type", f"{given.event_type!r} is no built-in type, but begins like one") from None
    except InvalidEvent as error:  # names its class first
        raise InvalidEvent(f"content.{error.path.partition('.')[2]}".rstrip("."), error.reason) from None
    return data
