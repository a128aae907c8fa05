"""One application's classes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from agent_manager.agents import wire
from agent_manager.agents.cardshapes import least_card, readable_card, with_interfaces
from agent_manager.agents.shapes import message_in_shape, task_in_shape
from agent_manager.manager.shapes.codecs import from_wire, to_wire
from agent_manager.manager.shapes.repair import repaired
from agent_manager.manager.views import ConversationView, EventView, Json
from eventstore.errors import InputError


@dataclass(frozen=True)
class Shape:
    """The classes that an application works with.

    Attributes:
        message, task, card: A2A's, of one of its versions.
        conversation, event: the application's, built from keywords.
        version: of A2A's wire shape that the classes read; None for classes that read both.
    """

    message: type
    task: type
    card: type
    conversation: Any
    event: Any
    version: wire.Shape | None

    def sent(self, message: Any) -> Json:
        """A message as it is on the wire."""
        return to_wire(message)

    def to_message(self, sent: Json, message_id: str = "") -> Any:
        """A message; one that was sent in the other shape is translated.

        Args:
            message_id: for one that was sent without.
        """
        try:
            if self.version is None:
                return from_wire(self.message, sent)
            shaped = sent if wire.shape_of(sent) == self.version else message_in_shape(sent, self.version)
            return from_wire(self.message, {"messageId": message_id} | shaped)
        except InputError:
            return from_wire(self.message, repaired(sent, self.version or wire.shape_of(sent), message_id))

    def to_task(self, sent: Json) -> Any:
        """A task; one that was sent in the other shape is translated."""
        if self.version is not None:
            return from_wire(self.task, task_in_shape(sent, self.version))
        try:
            return from_wire(self.task, sent)
        except InputError:  # an agent may have sent anything beside these
            return from_wire(self.task, {name: sent[name] for name in ("id", "status")})

    def to_card(self, sent: Json) -> Any:
        """An agent's card; of one that the class does not read, what it does."""
        complete = with_interfaces if self.version == "1.0" else dict
        for read in (sent, readable_card(sent)):
            with suppress(InputError):
                return from_wire(self.card, complete(read))
        return from_wire(self.card, complete(least_card(sent)))

    def to_conversation(self, view: ConversationView) -> Any:
        """A conversation."""
        return self.conversation(
            conversation_id=view.conversation_id,
            is_active=view.is_active,
            name=view.name,
            task_ids=list(view.task_ids),
            messages=list(map(self.to_message, view.messages, map(str, view.event_ids))),
        )

    def to_event(self, view: EventView) -> Any:
        """An event."""
        content = self.to_message(view.content, view.id)
        return self.event(id=view.id, actor=view.actor, content=content, timestamp=view.timestamp.timestamp())

    def attach(self, message: Any, stored: Json) -> Any:
        """The message that was given, with the context and task under which it is stored."""
        given = to_wire(message)
        for name, wired in (("context_id", "contextId"), ("task_id", "taskId")):
            if stored.get(wired) == given.get(wired):
                continue
            if isinstance(message, dict):
                message[wired] = stored[wired]
            else:
                setattr(message, name, stored[wired])
        return message
