"""Which accepted message an application hands over to be processed.

Between ``sanitize_message`` and ``process_message`` a message passes through the application, which may hand on the
instance or a copy. Ids do not identify it: they may repeat or be missing. The instance does; otherwise a digest of the
content, among the messages that are not processed yet.

Contents are read back from the log when a message is processed. Kept here are digests, and instances only as far as
:data:`INSTANCE_BYTES` reaches.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Any
from uuid import UUID

from agent_manager.manager.views import Accepted, Json

INSTANCE_BYTES = 8 * 1024 * 1024
"""Instances that are kept so that they are recognised, by the size of their JSON and :data:`_OBJECT_BYTES` each."""
MOST = 100_000
"""Messages that await processing, a few hundred bytes each; older ones are accepted anew when they are processed."""
_OBJECT_BYTES = 2048


@dataclass(frozen=True, slots=True)
class MessageRef:
    """Where an accepted message stands in the log."""

    conversation: UUID
    event_id: UUID
    position: int


@dataclass(eq=False, slots=True)
class _Entry:
    ref: MessageRef
    digest: bytes
    size: int
    instance: Any  # held, so that no other instance gets its address; None once it is let go
    is_processed: bool = False


class AcceptedMessages:
    """The messages that were accepted and await processing, and the latest of those that were processed.

    Any thread may use it.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, deque[_Entry]] = OrderedDict()
        self._waiting_count = 0
        self._held: OrderedDict[int, list[_Entry]] = OrderedDict()
        self._held_bytes = 0
        self._lock = Lock()

    def add(self, message: Any, accepted: Accepted) -> None:
        """Remember that an instance was accepted and is to be processed."""
        digest, size = _digest(accepted.message)
        ref = MessageRef(accepted.conversation, accepted.event_id, accepted.position)
        entry = _Entry(ref, digest, size + _OBJECT_BYTES, message)
        with self._lock:
            self._waiting.setdefault(digest, deque()).append(entry)
            self._waiting_count += 1
            self._held.setdefault(id(message), []).append(entry)
            self._held_bytes += entry.size
            while self._held_bytes > INSTANCE_BYTES:
                self._let_go(next(iter(self._held)))
            while self._waiting_count > MOST:
                self._take(next(iter(self._waiting.values()))[0])

    def take(self, message: Any, sent: Json) -> MessageRef | None:
        """Return what a message that is to be processed was accepted as; None for one that was not accepted.

        An instance that was accepted several times stands for the oldest acceptance that is not processed yet; if all
        are processed, for the latest with the same content: an application may have written a further message into it.
        A copy stands for the oldest equal message that is not processed yet.
        """
        digest, _ = _digest(sent)
        with self._lock:
            same = self._held.get(id(message), [])
            entry = next((one for one in same if not one.is_processed), None)
            if entry is None and (processed := [one for one in same if one.digest == digest]):
                return processed[-1].ref
            if entry is None and digest in self._waiting:
                entry = self._waiting[digest][0]
            if entry is None:
                return None
            self._take(entry)
            return entry.ref

    def _take(self, entry: _Entry) -> None:
        entry.is_processed = True
        self._waiting_count -= 1
        waiting = self._waiting[entry.digest]
        waiting.remove(entry)
        if not waiting:
            del self._waiting[entry.digest]

    def _let_go(self, key: int) -> None:
        for entry in self._held.pop(key):
            self._held_bytes -= entry.size
            entry.instance = None


def _digest(sent: Json) -> tuple[bytes, int]:
    """A digest of a message that does not depend on the order of members, and the size of its JSON."""
    try:
        text = json.dumps(sent, sort_keys=True).encode()
    except (TypeError, ValueError, RecursionError):  # it cannot be stored, so it equals nothing that was accepted
        return b"", 0
    return sha256(text).digest(), len(text)
