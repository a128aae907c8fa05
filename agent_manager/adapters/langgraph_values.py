"""Encodes values of LangGraph's channels: as trees, events, and copies of parts of the values of the checkpoint before.

Messages become message events, and large texts and values events of their own.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.base import SerializerProtocol
from pydantic_core import to_json

from agent_manager.adapters.blobs import is_large
from agent_manager.adapters.langgraph_messages import message_digest, message_event, task_events
from agent_manager.adapters.langgraph_thread import VALUE, Thread
from agent_manager.adapters.langgraph_trees import (
    PYDANTIC,
    Channels,
    Extension,
    TooDeep,
    Tree,
    Trees,
    add_file,
    expanded,
    has_copies,
    is_reference,
    is_tagged,
    same,
    unpack,
)
from eventstore import ApplicationEvent, NewEvent

LARGE_BYTES = 2000
"""From this size on a value becomes an event of its own, so that a thread can be read without its large values. About
here PostgreSQL begins to store values outside of their rows."""


@dataclass
class Encoder(Trees):
    """Encodes the values of one checkpoint, or of the writes to it.

    Attributes:
        message_channels: the channels whose messages become events.
        thread: to which the values belong, with what they refer to.
        channels: the values of the checkpoint before, for values that repeat parts of them.
        events: the events that the encoded values refer to and that are not stored yet, by their ids.
        has_copied: whether an encoded value copies from ``channels``.
    """

    serde: SerializerProtocol
    message_channels: frozenset[str]
    thread: Thread
    channels: Channels
    events: dict[UUID, NewEvent] = field(default_factory=dict)
    has_copied: bool = False
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._calls = {} if self.thread.is_deleted else self.thread.calls

    def encode(self, value: Any, channel: str = "") -> tuple[Tree, Tree]:
        """Return the value of a channel as it is stored, and complete."""
        kind, data = self.serde.dumps_typed(value)
        if kind == "null":
            return None, None
        whole: Tree = None
        if kind == "msgpack":
            with suppress(TooDeep):
                whole = self.tree(unpack(data), channel in self.message_channels)
        if whole is None:
            text = b64encode(data).decode()
            whole = {"~typed": [kind, add_file(self.files, data) if is_large(text) else text]}
        stored = self._changes(whole, channel)
        if stored is None:
            stored = self._without_repeated_lists(whole)
            if stored is whole and _size(whole) > LARGE_BYTES and not is_reference(whole):
                stored = whole = self._value(whole)
        return stored, whole

    def _member(self, name: str, value: Any, has_messages: bool, depth: int) -> Tree:
        return self.tree(value, has_messages or name in self.message_channels, depth)

    def _large(self, leaf: Tree) -> Tree:
        leaf = super()._large(leaf)
        size = len(leaf) if isinstance(leaf, str) else max(map(len, leaf.values()))
        return self._value(leaf) if size > LARGE_BYTES else leaf

    def _value(self, tree: Tree) -> Tree:
        event_id = self.thread.value_id(tree)
        if event_id not in self.thread.payload_versions:
            self.events[event_id] = NewEvent(ApplicationEvent(VALUE, tree), event_id)
        return {"~value": str(event_id)}

    def _extension(self, value: Extension, has_messages: bool, depth: int) -> Tree:
        if value.code == PYDANTIC:
            digest = message_digest(value.data)
            message_id = self.thread.message_ids.get(digest)
            made = message_event(value.data) if has_messages and not self._is_stored(message_id) else None
            if made is not None:
                message, files = made
                message = replace(message, id=self.thread.message_id(message.id))
                message_id = self.thread.message_ids[digest] = message.id
                if not self.thread.shows(message_id):
                    self.events[message_id] = message
                    self.files |= files
                    self.events |= {each.id: each for each in task_events(message, self._calls)}
            if message_id is not None and self._is_stored(message_id):
                return {"~message": str(message_id)}
        return super()._extension(value, has_messages, depth)

    def _is_stored(self, event_id: UUID | None) -> bool:
        return event_id is not None and (self.thread.shows(event_id) or event_id in self.events)

    # What changed

    def _changes(self, whole: Tree, channel: str) -> Tree:
        """Return how a value differs from the channel's value before; None if they have nothing in common."""
        before = expanded(self.channels.get(channel), self.thread.payloads)
        if isinstance(whole, list) and isinstance(before, list):
            return self._list_changes(whole, before, channel, channel)
        if isinstance(whole, dict) and isinstance(before, dict) and not (is_tagged(whole) or is_tagged(before)):
            removed = [name for name in before if name not in whole]
            changed = {
                name: value for name, value in whole.items() if name not in before or not same(before[name], value)
            }
            merged = {name: None for name in before if name in whole} | changed
            if len(changed) < len(whole) and list(merged) == list(whole):
                self.has_copied = True
                return {"~dict": [removed, {name: self._smaller(value) for name, value in changed.items()}]}
        return None

    def _list_changes(self, items: list[Tree], before: list[Tree], channel: str, own_channel: str = "") -> Tree:
        runs = list(_runs(items, before))
        if not any(number for _, number in runs):
            return None
        self.has_copied = True
        if runs[0] == (0, len(before)) and channel == own_channel:
            return {"~more": [self._smaller(item) for item in items[len(before) :]]}
        parts = [self._smaller(items[start]) if not number else {"~copy": [start, number]} for start, number in runs]
        return {"~list": [channel, *parts]}

    def _smaller(self, tree: Tree) -> Tree:
        tree = self._without_repeated_lists(tree)
        return self._value(tree) if _size(tree) > LARGE_BYTES and not has_copies(tree) else tree

    def _without_repeated_lists(self, tree: Tree) -> Tree:
        """Return a value in which lists of messages that the checkpoint's channels have too are copies of these."""
        if isinstance(tree, dict):
            changed = {name: self._without_repeated_lists(value) for name, value in tree.items()}
            return tree if all(changed[name] is value for name, value in tree.items()) else changed
        if not isinstance(tree, list):
            return tree
        if len(tree) > 1 and any(isinstance(item, dict) and "~message" in item for item in tree):
            for channel in self.message_channels & self.channels.keys():
                before = expanded(self.channels[channel], self.thread.payloads)
                if isinstance(before, list) and (changes := self._list_changes(tree, before, channel)) is not None:
                    return changes
        parts = [self._without_repeated_lists(item) for item in tree]
        return tree if all(part is item for part, item in zip(parts, tree, strict=True)) else parts


def _runs(items: list[Tree], before: list[Tree]) -> Iterator[tuple[int, int]]:
    """Yield the items as (index, 0) if they are new, and as (first index before, number) if they are copies."""
    places: dict[bytes, int] | None = None
    index, place = 0, 0
    while index < len(items):
        number = 0
        while (
            index + number < len(items)
            and place + number < len(before)
            and same(items[index + number], before[place + number])
        ):
            number += 1
        if number:
            yield place, number
            index, place = index + number, place + number
            continue
        if places is None:
            places = {to_json(item): number for number, item in reversed(list(enumerate(before)))}
        found = places.get(to_json(items[index]))
        if found is None:
            yield index, 0
            index += 1
        else:
            place = found


def _size(tree: Tree) -> int:
    return len(to_json(tree))
