"""Back-pressure: how much may wait to be appended, in all and for one conversation.

Who finds no room waits at the door, in order of arrival, and what it brings is not made ready before it is let in. One
conversation may fill only a part of the room, so one that somebody else has locked does not shut out the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

Key = bytes
"""A conversation: its id, then its tenant's name."""

MOST_EVENTS = 20_000
MOST_BYTES = 32 * 1024 * 1024
CONVERSATION_PART = 8
"""One conversation may fill one part of so many."""


@dataclass(slots=True)
class Guest:
    """An append that asks for room.

    Attributes:
        size: bytes, as far as they are known; known once it was let in and made ready.
    """

    keys: Sequence[Key]
    events: int
    size: int = 0


class Room:
    """Counts what waits."""

    def __init__(self) -> None:
        self._events = self._bytes = 0
        self._of: dict[Key, int] = {}
        self._door: deque[tuple[Guest, asyncio.Future[None]]] = deque()

    def enter_at_once(self, guest: Guest) -> bool:
        """Lets the guest in if there is room; :meth:`leave` must follow."""
        if self._door or not self._fits(guest):
            return False
        self._let_in(guest)
        return True

    async def enter(self, guest: Guest) -> None:
        """Returns when there is room; :meth:`leave` must follow."""
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._door.append((guest, admitted))
        self._admit()  # it may be that only another's conversation is full
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.leave(guest)
            raise

    def is_empty_but_for(self, guest: Guest) -> bool:
        """Whether nobody else is in."""
        return self._events == guest.events

    def weigh(self, guest: Guest, size: int) -> None:
        """Now that it is known: how many bytes the guest takes."""
        guest.size = size
        self._bytes += size

    def leave(self, guest: Guest) -> None:
        """Makes room for others."""
        self._events -= guest.events
        self._bytes -= guest.size
        for key in guest.keys:
            rest = self._of[key] - guest.events
            if rest > 0:
                self._of[key] = rest
            else:
                del self._of[key]
        if self._door:
            self._admit()

    def open(self) -> None:
        """Lets everybody in: they will find that there is nothing to do any more."""
        while self._door:
            guest, admitted = self._door.popleft()
            if not admitted.done():
                self._let_in(guest)
                admitted.set_result(None)

    def _fits(self, guest: Guest) -> bool:
        """Whatever its size, who comes alone is let in."""
        if self._events and (self._events + guest.events > MOST_EVENTS or self._bytes > MOST_BYTES):
            return False
        for key in guest.keys:
            waiting = self._of.get(key)
            if waiting and waiting + guest.events > MOST_EVENTS // CONVERSATION_PART:
                return False
        return True

    def _let_in(self, guest: Guest) -> None:
        self._events += guest.events
        for key in guest.keys:
            self._of[key] = self._of.get(key, 0) + guest.events

    def _admit(self) -> None:
        kept: deque[tuple[Guest, asyncio.Future[None]]] = deque()
        full: set[Key] = set()  # of which somebody waits: nobody overtakes within a conversation
        while self._door and (not self._events or (self._events < MOST_EVENTS and self._bytes <= MOST_BYTES)):
            guest, admitted = self._door.popleft()
            if admitted.done():
                continue
            if not full.isdisjoint(guest.keys) or not self._fits(guest):
                full.update(guest.keys)
                kept.append((guest, admitted))
                continue
            self._let_in(guest)
            admitted.set_result(None)
        kept.extend(self._door)
        self._door = kept
