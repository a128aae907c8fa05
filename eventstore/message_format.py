"""A2A messages as events and back, without loss.

Clients send messages in several shapes (OpenAI chat, A2A 0.3 and 1.x). What all of them have gets a place of its own
in :class:`~eventstore.vocabulary.MessageAdded`; everything else stays in ``extra`` exactly as it was. The order of the
message's own members is kept as ``sent_order``, that within their values by :mod:`eventstore.member_order`.
"""

from __future__ import annotations

from typing import Any

from eventstore.errors import InputError, InvalidEvent
from eventstore.member_order import arranged
from eventstore.vocabulary import MessageAdded, Role

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
    usual = list(_whole(str(role), {name: placed.get(name) for name in _PLACES}, extra))
    place_of = {name: place for place, name in enumerate(usual)}
    places = None if usual == list(sent) else [place_of[name] for name in sent]
    return MessageAdded(role=role, given_id=given_id, extra=extra or None, sent_order=places, **placed)


def sent_message(event: MessageAdded) -> dict[str, Any]:
    """The message as it was sent.

    Raises:
        InputError: it is not a MessageAdded.
    """
    if not isinstance(event, MessageAdded):
        raise InputError(f"event: expected a MessageAdded, got a {type(event).__name__}")
    placed = {"content": event.content, "parts": event.parts, "metadata": event.metadata}
    return _whole(str(event.role), placed, event.extra, event.sent_order)


def sent_from_row(
    role: str,
    content: str,
    parts: list[Any] | None,
    metadata: dict[str, Any] | None,
    extra: dict[str, Any] | None,
    sent_order: object = None,
) -> dict[str, Any]:
    """The message as it was sent, from its row in the table ``messages``.

    The column ``content`` is never null there, and holds the text of the parts where there are parts; so a text that
    was sent as ``content`` beside parts, or was empty, stands in ``extra`` (see ``messages.sql``).
    """
    rest = dict(extra or {})
    text: str | None = content if parts is None and content else None
    if isinstance(rest.get("content"), str):  # no text is kept there by message_from_sent
        text = rest.pop("content")
    elif "content" in rest:
        text = None
    return _whole(role, {"content": text, "parts": parts, "metadata": metadata}, rest, sent_order)


def _whole(
    role: str, placed: dict[str, Any], extra: dict[str, Any] | None, sent_order: object = None
) -> dict[str, Any]:
    """The message of its members, in the order sent."""
    message = {"role": role} | {name: value for name, value in placed.items() if value is not None} | (extra or {})
    names = list(message)
    return message if sent_order is None else {name: message[name] for name in arranged(names, sent_order)}
