"""Back-pressure: the events and bytes that are pending are bounded, in total, per tenant and per conversation.

If there is no capacity, appends wait, those of a tenant in FIFO order, and are not encoded until they are admitted. One
conversation may use an eighth of the capacity, so a conversation that another process has locked does not block the
others; one tenant may use half of it. Tenants take turns. An append asks for capacity once those before it in its
conversations have got theirs (:meth:`AppendQueue.next_to_admit`), so at most one of a conversation waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from eventstore.append import ConversationKey
from eventstore.append_queue import Group, PendingAppend, Turns

MAX_PENDING_EVENTS = 20_000
MAX_PENDING_BYTES = 32 * 1024 * 1024
MAX_TENANT_FRACTION, MAX_CONVERSATION_FRACTION = 1 / 2, 1 / 8


class Backpressure:
    """Capacity for the appends of one event loop. ``on_admitted`` is called once for each, when there is capacity.

    Attributes:
        events: of the appends that are admitted.
    """

    def __init__(self, on_admitted: Callable[[PendingAppend], None]) -> None:
        self._on_admitted = on_admitted
        self.events = 0
        self._bytes = 0
        self._events_of: dict[ConversationKey | str, int] = {}  # by conversation, and by name of the tenant
        self._waiting = Turns()
        self._is_admitting = False

    def request(self, append: PendingAppend) -> None:
        """Admit an append as soon as there is capacity for it, possibly now. :meth:`release` must follow.

        An append larger than the total capacity is admitted when nothing else is pending.
        """
        self._waiting.add(append)
        self._admit_waiting()

    def count_bytes(self, append: PendingAppend) -> None:
        """Account for the size of an append, which is known once it is encoded."""
        if append.is_admitted:
            append.counted_bytes = append.size
            self._bytes += append.counted_bytes

    def is_alone(self, append: PendingAppend) -> bool:
        """Return whether no other append is admitted."""
        return self.events == append.event_count

    def release(self, append: PendingAppend) -> None:
        """Return the capacity of an append, if it was admitted, and admit appends that now fit."""
        if append.is_admitted:
            append.is_admitted = False
            self._bytes -= append.counted_bytes
            self._count_events(append, -append.event_count)
        self._admit_waiting()

    def _fits(self, append: PendingAppend, key: ConversationKey | str, fraction: float) -> bool:
        """Return whether a tenant or conversation has nothing pending, or stays within its fraction of the capacity."""
        pending = self._events_of.get(key)
        return pending is None or pending + append.event_count <= MAX_PENDING_EVENTS * fraction

    def _count_events(self, append: PendingAppend, events: int) -> None:
        self.events += events
        keys: list[ConversationKey | str] = [append.tenant, *append.keys]
        for key in keys:
            if pending := self._events_of.get(key, 0) + events:
                self._events_of[key] = pending
            else:
                del self._events_of[key]

    def _admit_waiting(self) -> None:
        """Admit what fits, tenants in turn, and of each tenant the first one first, unless its conversation is full."""
        if self._is_admitting or not self._waiting:
            return  # what asks for capacity because of an admission is seen by the loop that runs
        self._is_admitting = True
        full: set[str] = set()
        skipped: Group = []
        try:
            while (append := self._waiting.take(full)) is not None:
                if append.is_over:
                    continue
                if self.events and not all(self._fits(append, key, MAX_CONVERSATION_FRACTION) for key in append.keys):
                    skipped.append(append)
                elif self.events and (
                    self.events + append.event_count > MAX_PENDING_EVENTS
                    or self._bytes > MAX_PENDING_BYTES
                    or not self._fits(append, append.tenant, MAX_TENANT_FRACTION)
                ):
                    full.add(append.tenant)
                    self._waiting.add(append, first=True)
                else:
                    append.is_admitted = True
                    self._count_events(append, append.event_count)
                    self._on_admitted(append)
        finally:
            self._is_admitting = False
        for append in reversed(skipped):
            self._waiting.add(append, first=True)
