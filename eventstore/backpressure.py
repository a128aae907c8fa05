"""Back-pressure: bounds the events and bytes that wait to be appended, in total and per conversation.

If there is no capacity, appends wait, those of a tenant in FIFO order, and their events are not serialised until they
are admitted. One conversation may use an eighth of the capacity, so a conversation that another process has locked does
not block the others; one tenant may use half of it, and tenants are admitted in turn, so none blocks the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from eventstore.batching import ConversationKey, PendingAppend, in_turn

MAX_EVENTS = 20_000
MAX_BYTES = 32 * 1024 * 1024
CONVERSATION_PART, TENANT_PART = 8, 2
"""One conversation, and one tenant, may use one part of so many."""


class Backpressure:
    """Capacity for the appends of one event loop."""

    def __init__(self, on_admitted: Callable[[PendingAppend], None]) -> None:
        """Create a queue.

        Args:
            on_admitted: called once for each append, when there is capacity for it.
        """
        self._on_admitted = on_admitted
        self._events = 0
        self._bytes = 0
        self._events_of: Counter[ConversationKey | str] = Counter()
        """By conversation, and by tenant."""
        self._waiting: deque[PendingAppend] = deque()

    def request(self, append: PendingAppend) -> None:
        """Admit an append as soon as there is capacity for it, possibly at once. :meth:`release` must follow.

        An append larger than the total capacity is admitted when nothing else is pending.
        """
        if self._waiting:
            self._waiting.append(append)
            self._admit_waiting()  # only another conversation may be full
        elif self._fits(append):
            self._admit(append)
        else:
            self._waiting.append(append)

    def weigh(self, append: PendingAppend) -> None:
        """Count the bytes of an append, which are known once it is prepared."""
        if append.is_admitted:
            self._bytes += append.size
            append.is_weighed = True

    def is_alone(self, append: PendingAppend) -> bool:
        """Return whether no other append is admitted."""
        return self._events == append.events

    def release(self, append: PendingAppend) -> None:
        """Return the capacity of an append, if it was admitted, and admit those that now fit."""
        if append.is_admitted:
            append.is_admitted = False
            self._events -= append.events
            if append.is_weighed:
                self._bytes -= append.size
            for key in _keys(append):
                self._events_of[key] -= append.events
                if not self._events_of[key]:
                    del self._events_of[key]
        if self._waiting:
            self._admit_waiting()

    def _fits(self, append: PendingAppend) -> bool:
        if not self._events:
            return True
        if self._events + append.events > MAX_EVENTS or self._bytes > MAX_BYTES:
            return False
        return self._has_part(append.tenant, append.events, TENANT_PART) and all(
            self._has_part(key, append.events, CONVERSATION_PART) for key in append.conversations
        )

    def _has_part(self, key: ConversationKey | str, events: int, part: int) -> bool:
        """Return whether a conversation or tenant that has nothing pending, or little enough, may have more."""
        return not (pending := self._events_of[key]) or pending + events <= MAX_EVENTS // part

    def _admit(self, append: PendingAppend) -> None:
        append.is_admitted = True
        self._events += append.events
        for key in _keys(append):
            self._events_of[key] += append.events
        self._on_admitted(append)

    def _admit_waiting(self) -> None:
        """Admit what fits, tenants in turn. No append overtakes another of the same conversation."""
        waiting, self._waiting = in_turn(self._waiting), deque()
        full: set[ConversationKey] = set()
        while waiting and (not self._events or (self._events < MAX_EVENTS and self._bytes <= MAX_BYTES)):
            append = waiting.popleft()
            if append.is_over:
                continue
            if full.isdisjoint(append.conversations) and self._fits(append):
                self._admit(append)
            else:
                full.update(append.conversations)
                self._waiting.append(append)
        self._waiting.extend(waiting)


def _keys(append: PendingAppend) -> list[ConversationKey | str]:
    return [append.tenant, *append.conversations]
