"""A message as it was sent, and the event that keeps it: there and back without loss.

Clients send messages in several shapes (OpenAI chat, A2A 0.3 and 1.x). What all of them have gets a place of its own
in :class:`~eventstore.vocabulary.MessageAdded`; everything else stays in ``extra`` exactly as it was.
"""

from __future__ import annotations

from typing import Any

from eventstore.errors import InvalidEvent
from eventstore.eventdata import Role
from eventstore.vocabulary import MessageAdded

ROLES = {
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "tool": Role.TOOL,
    "agent": Role.ASSISTANT,  # A2A 0.3
    "ROLE_USER": Role.USER,  # A2A 1.x
    "ROLE_AGENT": Role.ASSISTANT,
    "developer": Role.SYSTEM,  # OpenAI's newer and older names
    "function": Role.TOOL,
}
"""The roles that clients write, and the word the tables keep for each."""

_PLACES: dict[str, type] = {"content": str, "parts": list, "metadata": dict}


def message_from_sent(sent: dict[str, Any], *, given_id: str | None = None) -> MessageAdded:
    """The event that keeps a message.

    Raises:
        InvalidEvent: it is not an object, or its role is missing or not one of :data:`ROLES`.
    """
    if not isinstance(sent, dict):
        raise InvalidEvent("message", f"is a {type(sent).__name__}: expected an object")
    if "role" not in sent:
        raise InvalidEvent("role", "is missing")
    word = sent["role"]
    role = ROLES.get(word) if isinstance(word, str) else None
    if role is None:
        raise InvalidEvent("role", f"{word!r:.80} is not a known role: one of {', '.join(ROLES)}")
    extra = {name: value for name, value in sent.items() if name not in _PLACES and name != "role"}
    if word != role:
        extra["role"] = word
    placed: dict[str, Any] = {}
    for name, kind in _PLACES.items():
        if name in sent:
            (placed if isinstance(sent[name], kind) else extra)[name] = sent[name]
    return MessageAdded(role=role, given_id=given_id, extra=extra or None, **placed)


def sent_message(event: MessageAdded) -> dict[str, Any]:
    """The message as it was sent."""
    placed = {"content": event.content, "parts": event.parts, "metadata": event.metadata}
    return (
        {"role": str(event.role)}
        | {name: value for name, value in placed.items() if value is not None}
        | (event.extra or {})
    )


def sent_from_row(
    role: str, content: str, parts: list[Any] | None, metadata: dict[str, Any] | None, extra: dict[str, Any] | None
) -> dict[str, Any]:
    """The message as it was sent, from its row in the table ``messages``.

    The column ``content`` is never null there, and holds the text of the parts where there are parts; so a text that
    was sent as ``content`` beside parts, or was empty, stands in ``extra`` (see ``messages.sql``).
    """
    sent: dict[str, Any] = {"role": role}
    if parts is None and content:
        sent["content"] = content
    placed = {"parts": parts, "metadata": metadata}
    return sent | {name: value for name, value in placed.items() if value is not None} | (extra or {})
