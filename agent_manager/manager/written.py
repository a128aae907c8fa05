"""What a tenant has written: the positions that its reads must hold."""

from __future__ import annotations

from uuid import UUID

from eventstore import AppendResult

CONVERSATIONS = 500
"""The latest that are told apart; for all others one position is kept."""


class Written:
    """The highest positions that were appended for a tenant, by conversation.

    Reads wait for the tables to hold these. The tables follow the log in partitions of the conversations; so a read
    waits only for the partitions that its tenant wrote to, however much others write to the rest.

    Attributes:
        by_conversation: the highest position of each of the conversations that were written to last.
        earlier: the highest position of all others; 0 if there are none.
    """

    def __init__(self) -> None:
        self.by_conversation: dict[UUID, int] = {}
        self.earlier = 0

    @property
    def position(self) -> int:
        """The highest of all; 0 if nothing was written."""
        return max(self.earlier, max(self.by_conversation.values(), default=0))

    def note(self, result: AppendResult) -> None:
        """Note what was appended."""
        for conversation, position in {event.conversation_id: event.position for event in result.events}.items():
            self.by_conversation[conversation] = max(position, self.by_conversation.pop(conversation, 0))
        while len(self.by_conversation) > CONVERSATIONS:
            self.note_position(self.by_conversation.pop(next(iter(self.by_conversation))))

    def note_position(self, position: int) -> None:
        """Note that something was appended at a position, to a conversation that is not known."""
        self.earlier = max(self.earlier, position)
