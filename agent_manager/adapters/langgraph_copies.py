"""Copies of LangGraph's threads: the events of one conversation, as those of another.

In the copy, events have other versions, and a message that the target hides has another id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from agent_manager.adapters.blobs import FILES, referring
from agent_manager.adapters.langgraph_messages import EXTRA, as_written, message_event, task_events
from agent_manager.adapters.langgraph_thread import CHECKPOINT, PRUNED, RUNS_DELETED, VALUE, WRITES, Thread
from agent_manager.adapters.langgraph_trees import in_stored_order, references, with_ids
from agent_manager.adapters.store_access import restart
from eventstore import ApplicationEvent, Event, Metadata, NewEvent
from eventstore.events import PLAIN

_PART_BYTES = 4 * 1024 * 1024
_PART_EVENTS = 1000


def events_to_copy(events: Iterable[Event], source: Thread) -> Sequence[Event]:
    """Return the events of a thread that its copy needs: LangGraph's own, and the messages and values in them."""
    own = (CHECKPOINT, WRITES, PRUNED, RUNS_DELETED)
    shown = [
        event
        for event in events
        if event.event_type == VALUE
        or (not source.hides(event.version) and (event.event_type == "message.added" or event.event_type in own))
    ]
    wanted = {each for event in shown for each in references(_own_content(event, source))}
    return [
        event
        for event in shown
        if event.id in wanted
        or (event.event_type in own and (not event.is_erased or source.substitute(event.version) is not None))
    ]


def first_part(events: Sequence[Event]) -> Sequence[Event]:
    """Return as many events as one append takes well."""
    size = 0
    for number, event in enumerate(events):
        size += event.size
        if size > _PART_BYTES or number == _PART_EVENTS:
            return events[: max(number, 1)]
    return events


def files_of(event: Event) -> list[bytes]:
    """Return the SHA-256 of the files that an event refers to."""
    return list(map(bytes.fromhex, event.raw_metadata.get(FILES, ())))


def _own_content(event: Event, source: Thread) -> Any:
    """Return what LangGraph's events hold: their content, or the writes in the metadata of a message."""
    if event.is_erased:
        return source.substitute(event.version)
    return event.raw_metadata.get(EXTRA) if event.event_type == "message.added" else event.content


@dataclass
class Copied:
    """The part of a thread that is in its copy.

    Attributes:
        versions: the versions of events there, by those at the source.
        ids: the ids there of messages and values that have others at the source.
    """

    versions: dict[int, int] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def add(self, events: Iterable[Event], source: Thread, target: Thread, first: NewEvent) -> Sequence[NewEvent]:
        """Add events to the copy, and return those that it does not have.

        Args:
            source: has read the messages among the events.
            first: the event that begins the target if it is new.
        """
        new: list[NewEvent] = []
        if not target.version:
            new.append(first)
        elif target.is_deleted:
            new += restart()
        calls = {} if target.is_deleted else dict(target.calls)
        for event in events:
            self.versions[event.version] = target.version + len(new) + 1
            content = _own_content(event, source)
            if event.event_type == VALUE:
                new += self._value(event, with_ids(content, self.ids), target)
            elif event.event_type == "message.added":
                new += self._message(event, content, source, target, calls)
            else:
                new.append(self._own(event, self._there(content), is_new=not target.version))
        return new

    def _there(self, content: Any) -> Any:
        """Return what an event of LangGraph's own holds with the versions and ids of the copy."""
        if not isinstance(content, dict):
            return content
        content = with_ids(content, self.ids)
        named: dict[str, Any] = {
            name: self.versions[content[name]] for name in _VERSIONS if isinstance(content.get(name), int)
        }
        if "after" in content:
            named["after"] = [self.versions[each] for each in content["after"] if each in self.versions]
        return in_stored_order(content | named)

    def _message(
        self, event: Event, content: Any, source: Thread, target: Thread, calls: dict[str, Any]
    ) -> Iterable[NewEvent]:
        made = message_event(as_written(source.payloads[event.id]))
        assert made is not None
        event_id = target.message_id(made[0].id)
        if event_id != event.id:
            self.ids[str(event.id)] = str(event_id)
        writes = self._there(content)  # which have the message itself
        if target.shows(event_id):
            return [NewEvent(ApplicationEvent(WRITES, writes))] if writes is not None else []
        metadata = referring(PLAIN if writes is None else Metadata(**{EXTRA: writes}), files_of(event))
        data = made[0].data if event.is_erased else event.data
        message = NewEvent(data, event_id, event.actor, metadata)
        return [message, *task_events(message, calls)]

    def _value(self, event: Event, tree: Any, target: Thread) -> Iterable[NewEvent]:
        event_id = uuid4() if event.is_erased else target.value_id(tree)
        if event_id != event.id:
            self.ids[str(event.id)] = str(event_id)
        if event_id in target.payload_versions:
            return []
        return [NewEvent(ApplicationEvent(VALUE, tree), event_id, metadata=referring(PLAIN, files_of(event)))]

    def _own(self, event: Event, content: Any, *, is_new: bool) -> NewEvent:
        if event.event_type == CHECKPOINT and not is_new:
            content = in_stored_order({"id": str(event.id)} | content)
        metadata = referring(PLAIN, files_of(event))
        return NewEvent(ApplicationEvent(event.event_type, content), event.id if is_new else uuid4(), metadata=metadata)


_VERSIONS = ("parent", "checkpoint", "base")
"""The members of the contents of LangGraph's events that are versions, unless they are ids."""
