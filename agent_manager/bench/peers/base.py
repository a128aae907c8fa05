"""What the benchmark asks of a peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from agent_manager.bench.messages import Message
from agent_manager.bench.place import Place


class PeerMissing(Exception):
    """A peer that cannot run here. Its text says why, and what to do if anything can be done."""


class Peer(Protocol):
    """A store of messages in PostgreSQL, used as its documentation recommends.

    Each message is one call that returns when the message is durable.
    """

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """Makes its tables in the schema, and so many connections: one a caller, or all that the server has left.

        Raises:
            PeerMissing: it cannot run in this place.
        """

    async def begin(self, messages: Sequence[Message]) -> None:
        """Does what it needs to have done before messages of these conversations come; the clock stands."""

    def prepared(self, message: Message) -> Any:
        """The message as its users make one; the clock stands."""

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """Appends a caller's messages one after the other, all callers at once; returns messages a second."""

    async def close(self) -> None:
        """Closes its connections."""
