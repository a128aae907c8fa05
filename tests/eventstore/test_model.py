"""Appends and reads agree with a log kept in a few Python lists, whatever is done in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw import note
from support.values import json_values

from eventstore import ANY, EXISTS, NO_STREAM, Append, EventStore, ExpectedVersion, NewEvent
from eventstore.errors import ConflictError, EventIdConflict, WrongExpectedVersion

CONVERSATIONS = [UUID(int=n) for n in range(1, 4)]
IDS = [UUID(int=n) for n in range(100, 112)]

events = st.builds(
    lambda content, event_type, id, actor: NewEvent(note(content, event_type), id, actor),
    st.integers(0, 2) | json_values,
    st.sampled_from(["red", "blue"]),
    st.sampled_from(IDS) | st.uuids(version=4),
    st.sampled_from(["", "ana"]),
)
expectations = st.sampled_from([ANY, ANY, EXISTS, NO_STREAM]) | st.integers(0, 6)
appends = st.lists(
    st.builds(
        Append,
        st.sampled_from(CONVERSATIONS),
        st.lists(events, min_size=1, max_size=4, unique_by=lambda event: event.id),
        expectations,
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda append: append.conversation_id,
)
repeats = st.integers(0, 20)
"""Repeats the append of that number, however it went."""
queries = st.fixed_dictionaries(
    {"backwards": st.booleans(), "limit": st.none() | st.integers(0, 6), "after": st.integers(0, 6)},
    optional={"types": st.lists(st.sampled_from(["red", "blue", "green"])), "actor": st.sampled_from(["", "ana"])},
)


@dataclass
class Stored:
    """An event of the model."""

    conversation: UUID
    version: int
    event: NewEvent

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.conversation, self.version, self.event.id, *_shape(self.event))


@dataclass
class Model:
    """The log as a list."""

    log: list[Stored] = field(default_factory=list)

    def conversation(self, conversation: UUID | str) -> list[Stored]:
        return [stored for stored in self.log if stored.conversation == conversation]

    def append(self, batch: Sequence[Append]) -> list[tuple[int, bool]] | type[ConflictError]:
        """The version of each event and whether it is new, or the error."""
        there = {
            append.conversation_id: {s.event.id: s for s in self.conversation(append.conversation_id)}
            for append in batch
        }
        for append in batch:
            for event in append.events:
                assert isinstance(event, NewEvent)
                known = there[append.conversation_id].get(event.id)
                if known is not None and _shape(known.event) != _shape(event):
                    return EventIdConflict
        for append in batch:
            found = there[append.conversation_id]
            something_new = any(event.id not in found for event in append.events)  # type: ignore[union-attr]
            if something_new and not _fits(append.expected, len(found)):
                return WrongExpectedVersion
        result = []
        for append in batch:
            found = there[append.conversation_id]
            version = len(found)
            for event in append.events:
                assert isinstance(event, NewEvent)
                if event.id in found:
                    result.append((found[event.id].version, False))
                else:
                    version += 1
                    self.log.append(Stored(UUID(str(append.conversation_id)), version, event))
                    result.append((version, True))
        return result


def _shape(event: NewEvent) -> tuple[Any, ...]:
    # JSON has one kind of number and no kinds of truth for it: 1 and 1.0 are equal, 1 and true are not.
    return (event.data.event_type, event.actor, _comparable(event.data.to_content()))


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return ("object", frozenset((key, _comparable(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(_comparable, value)))
    return (isinstance(value, bool), value)


def _fits(expected: ExpectedVersion, version: int) -> bool:
    if expected == ANY:
        return True
    if expected == EXISTS:
        return version > 0
    return version == (0 if expected == NO_STREAM else expected)


def _select(stored: list[Stored], query: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = [
        s
        for s in stored
        if ("types" not in query or s.event.data.event_type in query["types"])
        and ("actor" not in query or s.event.actor == query["actor"])
    ]
    return [s.key for s in (found[::-1] if query["backwards"] else found)][: query["limit"]]


async def _found(events: Any) -> list[tuple[Any, ...]]:
    return [(e.conversation_id, e.version, e.id, e.event_type, e.actor, _comparable(e.content)) async for e in events]


@settings(max_examples=120)
@given(steps=st.lists(appends | repeats, min_size=1, max_size=10), questions=st.lists(queries, max_size=4))
async def test_the_log_behaves_like_a_list(
    store: EventStore, steps: list[list[Append] | int], questions: list[dict[str, Any]]
) -> None:
    model, tenant = Model(), uuid4().hex
    done: list[list[Append]] = []
    positions: list[int] = []
    for step in steps:
        if isinstance(step, int):
            if not done:
                continue
            step = done[step % len(done)]
        done.append(step)
        expected = model.append(step)
        if isinstance(expected, type):
            with pytest.raises(expected):
                await store.append_all(step, tenant=tenant)
        else:
            result = await store.append_all(step, tenant=tenant)
            assert [(one.version, one.is_new) for one in result.events] == expected
            positions += [one.position for one in result.events if one.is_new]

    assert positions == sorted(set(positions))
    assert [event.position async for event in store.read_log(tenant=tenant)] == positions
    assert await _found(store.read_log(tenant=tenant)) == [stored.key for stored in model.log]
    for query in questions:
        after = query["after"]
        for conversation in CONVERSATIONS:
            mine = model.conversation(conversation)[after:]
            assert await _found(store.read(conversation, tenant=tenant, **query)) == _select(mine, query)
        start = positions[min(after, len(positions)) - 1] if after and positions else 0
        selected = _select(model.log[after:] if start else model.log, query)
        assert await _found(store.read_log(tenant=tenant, **(query | {"after": start}))) == selected
