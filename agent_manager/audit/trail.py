"""The trail: what an event says of who did what, why and through what, and what caused what.

Its events are read from the log by conversation, actor, type, correlation id and time
(:meth:`projections.Reader.history`, :meth:`eventstore.EventStore.read_log`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from agent_manager.audit.sealed_tree import PACKAGE
from eventstore import Caller, Event, EventStore
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound
from projections.pages import OBJECT_BYTES

MAX_BYTES = 32 * 2**20
"""The most memory that the causes and effects of an event take."""
_CAUSES = query(PACKAGE, "causes")
_CAUSE_ELSEWHERE = query(PACKAGE, "cause_elsewhere")
_EFFECTS_ELSEWHERE = query(PACKAGE, "effects_elsewhere")


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
        cause_id: the event that has caused it; None if that is not known.
        depth: how many causes are between it and the event that was asked for, and one more; 0 for that event itself.
    """

    event: Event
    cause_id: UUID | None
    depth: int


@dataclass(frozen=True, slots=True)
class Causation:
    """The causes and the effects of an event.

    Attributes:
        causes: of the event, the first one first.
        effects: the event itself and all that it has caused, directly or not, each before its own effects.
    """

    causes: list[Event]
    effects: list[Effect]


async def read_causation(
    store: EventStore, caller: Caller, conversation_id: UUID, event_id: UUID, *, across: bool = False
) -> Causation:
    """Return the causes and effects of an event: those of a message are the task, its artifacts and the reply.

    Args:
        across: whether to follow them into other conversations that the caller may see. No index has causes: this reads
            the log after the event once for each conversation that is between it and its last effects, and once more.

    Raises:
        NotFound: the conversation has no such event that the caller may see.
        InputError: the causes and effects are too many, or too large.
    """
    asked = _Place(conversation_id, event_id)
    tree = _Tree(store, caller)
    await tree.add(conversation_id)
    if asked not in tree.versions:
        raise NotFound(f"conversation {conversation_id} has no event {event_id}: eventstore history shows its events")
    if across:
        await tree.add_causes_elsewhere(asked)
        await tree.add_effects_elsewhere(asked)
    above, below = tree.causes_of(asked), tree.effects_of(asked)
    events = await tree.read([*above, *(each for each, _ in below)])
    return Causation(
        [events[each] for each in above],
        [Effect(events[each], cause and cause.id, depth) for each, depth in below for cause in [tree.causes[each]]],
    )


class _Place(NamedTuple):
    """An event of a conversation."""

    conversation_id: UUID
    id: UUID


class _Tree:
    """The causes and effects of conversations, as far as they were read.

    Attributes:
        versions: of their events.
        causes: of each of their events; None if it is not known.
    """

    def __init__(self, store: EventStore, caller: Caller) -> None:
        self._store, self._caller = store, caller
        self._conversations: set[UUID] = set()
        self.versions: dict[_Place, int] = {}
        self.causes: dict[_Place, _Place | None] = {}
        self._effects: defaultdict[_Place, list[_Place]] = defaultdict(list)

    async def add(self, conversation_id: UUID) -> None:
        """Add the events of a conversation, with the causes that are in it."""
        if conversation_id in self._conversations:
            return
        self._conversations.add(conversation_id)
        for version, each, cause in await self._fetch(_CAUSES, conversation=conversation_id):
            place = _Place(conversation_id, each)
            self.versions[place], self.causes[place] = version, None
            if cause is not None:
                self._link(place, _Place(conversation_id, cause))

    def _link(self, effect: _Place, cause: _Place) -> None:
        self.causes[effect] = cause
        self._effects[cause].append(effect)

    async def _fetch(self, text: str, **given: Any) -> list[Any]:
        return await self._store.log(self._caller).fetch(text, {"tenant": self._caller.tenant, **given})

    async def add_causes_elsewhere(self, asked: _Place) -> None:
        """Follow the first cause of an event into other conversations."""
        first = [*self.causes_of(asked), asked][0]
        for conversation_id, cause in await self._fetch(
            _CAUSE_ELSEWHERE, conversation=first.conversation_id, version=self.versions[first]
        ):
            await self.add(conversation_id)
            place = _Place(conversation_id, cause)
            if place in self.versions and first not in (place, *self.causes_of(place)):
                self._link(first, place)
                await self.add_causes_elsewhere(asked)

    async def add_effects_elsewhere(self, asked: _Place) -> None:
        """Follow the effects of an event into other conversations."""
        known: set[_Place] = set()
        while new := {each for each, _ in self.effects_of(asked)} - known:
            known |= new
            by_id = {str(each.id): each for each in new}
            rows = await self._fetch(
                _EFFECTS_ELSEWHERE,
                conversations=[each.conversation_id for each in new],
                versions=[self.versions[each] for each in new],
                ids=list(by_id),
            )
            for conversation_id, each, cause in rows:
                await self.add(conversation_id)
                effect = _Place(conversation_id, each)
                if self.causes.get(effect, effect) is None and effect not in [*self.causes_of(asked), asked]:
                    self._link(effect, by_id[cause])

    def causes_of(self, place: _Place) -> list[_Place]:
        """Return the causes of an event, the first one first."""
        above: list[_Place] = []
        while (cause := self.causes[place]) is not None:
            above.insert(0, cause)
            place = cause
        return above

    def effects_of(self, place: _Place) -> list[tuple[_Place, int]]:
        """Return an event and its effects with their depths, each before its own effects."""
        below: list[tuple[_Place, int]] = []
        pending = [(place, 0)]
        while pending:
            each, depth = pending.pop()
            below.append((each, depth))
            pending += [(effect, depth + 1) for effect in reversed(self._effects[each])]
        return below

    async def read(self, places: Sequence[_Place]) -> dict[_Place, Event]:
        """Return the events at places.

        Raises:
            InputError: they are too large.
        """
        size = 0
        numbers: defaultdict[UUID, list[int]] = defaultdict(list)
        for each in places:
            numbers[each.conversation_id].append(self.versions[each])
        events, wanted = {}, set(places)
        for conversation_id, versions in numbers.items():
            async for event in self._store.read(
                conversation_id,
                after=min(versions) - 1,
                until_version=max(versions),
                tenant=self._caller.tenant,
                user=self._caller.user,
            ):
                if (place := _Place(conversation_id, event.id)) in wanted:
                    events[place] = event
                    size += OBJECT_BYTES + event.size
                if size > MAX_BYTES:
                    raise InputError(
                        f"event {places[0].id}: its causes and effects take more than {MAX_BYTES:,} bytes: read the "
                        "trail of the conversation, which is paged"
                    )
        return events
