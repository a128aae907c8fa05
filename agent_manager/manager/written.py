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
    """

    def __init__(self) -> None:
        self._latest: dict[UUID | None, int] = {}
        self._others = 0

    @property
    def position(self) -> int:
        """The highest of all; 0 if nothing was written."""
        return max(self._others, max(self._latest.values(), default=0))

    @property
    def by_conversation(self) -> dict[UUID | None, int]:
        """The highest position of each conversation; None stands for all conversations."""
        return self._latest | ({None: self._others} if self._others else {})

    def note(self, result: AppendResult) -> None:
        """Note what was appended."""
        for conversation, position in {event.conversation_id: event.position for event in result.events}.items():
            self._latest[conversation] = max(position, self._latest.pop(conversation, 0))
        while len(self._latest) > CONVERSATIONS:
            self.note_position(self._latest.pop(next(iter(self._latest))))

    def note_position(self, position: int) -> None:
        """Note that something was appended at a position, to a conversation that is not known."""
        self._others = max(self._others, position)
