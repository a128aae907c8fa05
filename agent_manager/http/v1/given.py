"""Events as a request gives them: by type and content, and read more strictly than what a newer version wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from agent_manager.http.models.events import EventIn
from eventstore import ApplicationEvent, EventData, Metadata, NewEvent
from eventstore.errors import InvalidEvent
from eventstore.vocabulary import BUILT_IN, RESERVED_PREFIXES

AT_ONCE = 10
"""Events that are validated before the event loop may do something else: about a millisecond's work."""


async def new_events(given: Sequence[Any], new_id: Callable[[str, int], UUID]) -> list[NewEvent]:
    """Return the events of a body to append, a few at a time: thousands would hold up all other requests.

    Raises:
        RequestValidationError: they have not the members of an event; names all that is wrong.
        InvalidEvent: see :func:`new_event`.
    """
    made: list[NewEvent] = []
    wrong: list[Any] = []
    for number, each in enumerate(given):
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
        try:
            event = EventIn.model_validate(each)
        except ValidationError as error:
            wrong += [one | {"loc": ("body", "events", number, *one["loc"])} for one in error.errors()]
            continue
        if not wrong:
            made.append(new_event(event, f"events[{number}]", new_id("event", number)))
    if wrong:
        raise RequestValidationError(wrong)
    return made


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
