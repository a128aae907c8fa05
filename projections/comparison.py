"""Comparing two conversations, such as a fork with what it continues, or two versions of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from eventstore.errors import InputError
from eventstore.events import HIGHEST_POSITION
from projections.conversation_snapshot import Ancestor, shared_then
from projections.pages import OBJECT_BYTES
from projections.rows import Conversation, Message, ReadTableRow, Task

if TYPE_CHECKING:
    from projections.reading import Reader

_COMPARED = ("name", "metadata", "is_active", "is_deleted")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two conversations, or between two versions of one.

    Attributes:
        first, second: the conversations as they were compared.
        shared: the last conversation that both show, and the version up to which; None if they have nothing in common.
        conversation: the values of the members that differ, by name.
        removed, added: the messages that only the first, or only the second, shows.
        changed: the messages that both show, whose answer differs.
        removed_tasks, added_tasks: the tasks that only the first, or only the second, shows.
        changed_tasks: the tasks that both show, in another state.
    """

    first: Conversation
    second: Conversation
    shared: Ancestor | None
    conversation: dict[str, tuple[Any, Any]]
    removed: tuple[Message, ...]
    added: tuple[Message, ...]
    changed: tuple[tuple[Message, Message], ...]
    removed_tasks: tuple[Task, ...]
    added_tasks: tuple[Task, ...]
    changed_tasks: tuple[tuple[Task, Task], ...]


async def compare(
    reader: Reader,
    first: UUID | str,
    second: UUID | str | None,
    version: int | None,
    second_version: int | None,
    max_bytes: int | None,
) -> Comparison:
    """See :meth:`projections.Reader.compare`.

    In memory are digests of all rows, and the rows that differ. So the first conversation is read twice.
    """
    before = await _read(reader, first, version, {}, max_bytes, keeps=False)
    after = await _read(reader, first if second is None else second, second_version, before.digests, max_bytes)
    if any(after.digests.get(key) != digest for key, digest in before.digests.items()):
        found = before.conversation
        before = await _read(reader, found.id, found.version, after.digests, max_bytes)
    chains = []
    for side in (before, after):
        shared = await shared_then(reader.store, reader.caller, side.conversation.id, {})
        chains.append([Ancestor(side.conversation.id, side.conversation.version), *shared])
    return _compared(before, after, _last_shared(*chains))


_Key: TypeAlias = UUID | tuple[UUID, UUID]
"""Identifies a message by its conversation and its id, or a task by its id."""


@dataclass
class _Side:
    """A conversation to compare: the digests of all its rows, and the rows that are not those of the other one."""

    conversation: Conversation
    digests: dict[_Key, bytes] = field(default_factory=dict)
    messages: dict[_Key, Message] = field(default_factory=dict)
    tasks: dict[_Key, Task] = field(default_factory=dict)


async def _read(
    reader: Reader,
    conversation: UUID | str,
    version: int | None,
    other: Mapping[_Key, bytes],
    max_bytes: int | None,
    *,
    keeps: bool = True,
) -> _Side:
    limit: dict[str, Any] = {"position": HIGHEST_POSITION} if version is None else {"version": version}
    size = 0
    async with reader.snapshot_at(conversation, **limit) as snapshot:
        side = _Side(snapshot.conversation)

        def add(key: _Key, row: ReadTableRow, kept: dict[_Key, Any]) -> None:
            nonlocal size
            size += OBJECT_BYTES
            side.digests[key] = digest = row.digest
            if keeps and other.get(key) != digest:
                kept[key] = row
                size += row.size
            if max_bytes is not None and size > max_bytes:
                raise InputError(
                    f"conversation {snapshot.conversation.id}: what differs takes more than {max_bytes:,} bytes: "
                    "compare versions that are closer to each other, or read both states"
                )

        async for message in snapshot.messages():
            add((message.conversation_id, message.id), message, side.messages)
        async for task in snapshot.tasks():
            add(task.id, task, side.tasks)
    return side


def _last_shared(first: Sequence[Ancestor], second: Sequence[Ancestor]) -> Ancestor | None:
    of_second = dict(second)
    for conversation_id, version in first:
        if conversation_id in of_second:
            return Ancestor(conversation_id, min(version, of_second[conversation_id]))
    return None


def _compared(first: _Side, second: _Side, shared: Ancestor | None) -> Comparison:
    members = {name: (getattr(first.conversation, name), getattr(second.conversation, name)) for name in _COMPARED}
    # Whether a message was answered is known only in the conversation in which it was written.
    are_same = first.conversation.id == second.conversation.id
    return Comparison(
        first.conversation,
        second.conversation,
        shared,
        {name: values for name, values in members.items() if values[0] != values[1]},
        tuple(row for key, row in first.messages.items() if key not in second.digests),
        tuple(row for key, row in second.messages.items() if key not in first.digests),
        tuple(
            (row, second.messages[key]) for key, row in first.messages.items() if are_same and key in second.messages
        ),
        tuple(row for key, row in first.tasks.items() if key not in second.digests),
        tuple(row for key, row in second.tasks.items() if key not in first.digests),
        tuple((row, second.tasks[key]) for key, row in first.tasks.items() if key in second.tasks),
    )
