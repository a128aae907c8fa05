"""Messages that are stored and await their answers."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from threading import Lock
from typing import Any, TypeAlias
from uuid import UUID

from agent_manager.a2a import Json

INSTANCE_BYTES = 8 * 1024 * 1024
"""Size of the instances that are kept for recognition: of their JSON, and :data:`_OBJECT_BYTES` for each."""
MAX_UNPROCESSED = 100_000
"""Messages that await processing, a few hundred bytes each. Older ones are accepted again when they are processed."""
_OBJECT_BYTES = 2048

Key: TypeAlias = tuple[UUID, UUID]
"""A message: its conversation, and the id of its event, which is unique only within the conversation."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message that is durable and awaits its answer.

    Attributes:
        conversation_id: the id that the client chose, or a new one if the message has none.
        conversation: the conversation's id in the log and the tables.
        event_id: the id of the message's event.
        message: the message as it is stored; its ``taskId`` names the task that it continues.
        position: the position of the event.
        notes: what of the message is too large to be stored, and the setting that allows it.
        push_notification: the setting of push notifications that came with the message, with its secrets; they are not
            stored, so another process does not know it.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message: Json
    position: int
    notes: tuple[str, ...] = ()
    push_notification: Json | None = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """The conversation and the event."""
        return self.conversation, self.event_id

    @property
    def message_id(self) -> str:
        """The id that the client chose; it need not be unique."""
        return self.message.get("messageId") or ""

    @property
    def task_id(self) -> str | None:
        """The id, chosen by the agent, of the open task that the message continues."""
        task_id = self.message.get("taskId")
        return task_id if isinstance(task_id, str) and task_id else None


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that awaits its answer.

    Attributes:
        status: the latest status text of the task that the agent works on; empty if there is none.
        since: the time when the message was accepted.
    """

    conversation_id: str
    conversation: UUID
    event_id: UUID
    message_id: str
    status: str
    since: datetime
    position: int


# The messages of a synchronous application between their acceptance and their processing


@dataclass(eq=False, slots=True)
class _Entry:
    """An accepted message.

    Attributes:
        instance: held, so that no other instance gets its address; None after it is dropped.
    """

    key: Key
    digest: bytes
    size: int
    instance: Any
    is_processed: bool = False


class AcceptedMessages:
    """The accepted messages that await processing, and the latest processed ones. Any thread may use it.

    Between ``sanitize_message`` and ``process_message`` the application may pass on the same instance or a copy. Ids do
    not identify a message: they may repeat or be missing. The instance does; otherwise a digest of the content does,
    among the messages that are not processed yet.

    Contents are read from the log again when a message is processed. Only digests are kept here, and instances within
    :data:`INSTANCE_BYTES`.
    """

    def __init__(self) -> None:
        self._unprocessed: OrderedDict[bytes, deque[_Entry]] = OrderedDict()
        self._unprocessed_count = 0
        self._by_instance: OrderedDict[int, list[_Entry]] = OrderedDict()
        self._instance_bytes = 0
        self._lock = Lock()

    def add(self, message: Any, accepted: Accepted) -> None:
        """Add an accepted message and its instance."""
        digest, size = _digest(accepted.message)
        entry = _Entry(accepted.key, digest, size + _OBJECT_BYTES, message)
        with self._lock:
            self._unprocessed.setdefault(digest, deque()).append(entry)
            self._unprocessed_count += 1
            self._by_instance.setdefault(id(message), []).append(entry)
            self._instance_bytes += entry.size
            while self._instance_bytes > INSTANCE_BYTES:
                self._drop_instance(next(iter(self._by_instance)))
            while self._unprocessed_count > MAX_UNPROCESSED:
                self._set_processed(next(iter(self._unprocessed.values()))[0])

    def take(self, message: Any, wire: Json) -> Key | None:
        """Return the accepted message for an instance that is to be processed; None if it was not accepted.

        An instance that was accepted several times stands for the oldest acceptance that is not processed yet; if all
        are processed, for the latest with the same content: an application may have written a further message into it.
        A copy stands for the oldest equal message that is not processed yet.
        """
        digest, _ = _digest(wire)
        with self._lock:
            same = self._by_instance.get(id(message), [])
            entry = next((each for each in same if not each.is_processed), None)
            if entry is None and (processed := [each for each in same if each.digest == digest]):
                return processed[-1].key
            if entry is None and digest in self._unprocessed:
                entry = self._unprocessed[digest][0]
            if entry is None:
                return None
            self._set_processed(entry)
            return entry.key

    def _set_processed(self, entry: _Entry) -> None:
        entry.is_processed = True
        self._unprocessed_count -= 1
        equal = self._unprocessed[entry.digest]
        equal.remove(entry)
        if not equal:
            del self._unprocessed[entry.digest]

    def _drop_instance(self, key: int) -> None:
        for entry in self._by_instance.pop(key):
            self._instance_bytes -= entry.size
            entry.instance = None


def _digest(message: Json) -> tuple[bytes, int]:
    """Return a digest of a message that does not depend on the order of members, and the size of its JSON."""
    try:
        text = json.dumps(message, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError):  # it cannot be stored, so it equals no accepted message
        return b"", 0
    return sha256(text).digest(), len(text)
