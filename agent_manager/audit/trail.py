"""The trail: what an event says of who did what, why and through what, and what caused what in a conversation.

Its events are read from the log by conversation, actor, type, correlation id and time
(:meth:`projections.Reader.history`, :meth:`eventstore.EventStore.read_log`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from agent_manager.audit.sealed_tree import PACKAGE
from eventstore import Caller, Event, EventStore
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound
from projections.pages import OBJECT_BYTES

MAX_BYTES = 32 * 2**20
"""The most memory that the causes and effects of an event take."""
_CAUSES = query(PACKAGE, "causes")


def why(event: Event) -> str:
    """Return why something happened, as an act, an erasure or a failure states it; empty if it does not."""
    content = event.content if isinstance(event.content, dict) else {}
    return str(content.get("reason") or content.get("error") or "")


def through(event: Event) -> str:
    """Return the program, and the login of the database, through which an administrator acted; empty if unknown."""
    return " ".join(str(event.raw_metadata[name]) for name in ("via", "login") if event.raw_metadata.get(name))


@dataclass(frozen=True, slots=True)
class Effect:
    """An event that another one has caused.

    Attributes:
        cause_id: the event that has caused it; None if that is not in the conversation.
        depth: how many causes are between it and the event that was asked for, and one more; 0 for that event itself.
    """

    event: Event
    cause_id: UUID | None
    depth: int


@dataclass(frozen=True, slots=True)
class Causation:
    """What has led to an event of a conversation, and what it has caused.

    Attributes:
        causes: of the event, the first one first.
        effects: the event itself and all that it has caused, directly or not, each before its own effects.
    """

    causes: list[Event]
    effects: list[Effect]


async def read_causation(store: EventStore, caller: Caller, conversation_id: UUID, event_id: UUID) -> Causation:
    """Return the causes and effects of an event: those of a message are the task, its artifacts and the reply.

    Raises:
        NotFound: the conversation has no such event that the caller may see.
        InputError: the causes and effects are too many, or too large.
    """
    given = {"tenant": caller.tenant, "conversation": conversation_id}
    rows = await store.log(caller).fetch(_CAUSES, given)
    versions: dict[UUID, int] = {}
    causes: dict[UUID, UUID | None] = {}
    effects: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for version, each, cause in rows:
        versions[each], causes[each] = version, cause
        if cause is not None:
            effects[cause].append(each)
    if event_id not in versions:
        raise NotFound(f"conversation {conversation_id} has no event {event_id}: eventstore history shows its events")
    above: list[UUID] = []
    cause = causes[event_id]
    while cause is not None:
        above.append(cause)
        cause = causes[cause]
    below: list[tuple[UUID, int]] = []
    pending = [(event_id, 0)]
    while pending:
        each, depth = pending.pop()
        below.append((each, depth))
        pending += [(effect, depth + 1) for effect in reversed(effects[each])]
    wanted = {*above, *(each for each, _ in below)}
    numbers = [versions[each] for each in wanted]
    events: dict[UUID, Event] = {}
    size = 0
    async for event in store.read(
        conversation_id, after=min(numbers) - 1, until_version=max(numbers), tenant=caller.tenant, user=caller.user
    ):
        if event.id in wanted:
            events[event.id] = event
            size += OBJECT_BYTES + event.size
        if size > MAX_BYTES:
            raise InputError(
                f"event {event_id}: its causes and effects take more than {MAX_BYTES:,} bytes: read the trail of the "
                "conversation, which is paged"
            )
    return Causation(
        [events[each] for each in reversed(above)],
        [Effect(events[each], causes[each], depth) for each, depth in below],
    )
