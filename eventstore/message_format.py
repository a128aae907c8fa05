"""Conversion of A2A messages to events and back, without loss.

Clients send messages in several formats (OpenAI chat, A2A 0.3 and 1.x). The members that all formats share have fields
in :class:`~eventstore.event_types.MessageAdded`; all others stay unchanged in ``extra``. The order of the message's
members is kept as ``sent_order``, the order within their values by :mod:`eventstore.member_order`.
"""

from __future__ import annotations

from typing import Any

from eventstore.errors import InputError, InvalidEvent
from eventstore.event_types import MessageAdded, Role
from eventstore.member_order import arranged

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
"""The roles that clients send, and the stored role of each."""

_FIELDS: dict[str, type] = {"content": str, "parts": list, "metadata": dict}


def message_from_sent(sent: dict[str, Any], *, given_id: str | None = None) -> MessageAdded:
    """Return the event of a message as it was sent.

    Raises:
        InvalidEvent: it is not an object, or its role is missing or not one of :data:`ROLES`.
    """
    if not isinstance(sent, dict):
        raise InvalidEvent("message", f"is a {type(sent).__name__}: expected an object")
    if "role" not in sent:
        raise InvalidEvent("role", "is missing")
    sent_role = sent["role"]
    role = ROLES.get(sent_role) if isinstance(sent_role, str) else None
    if role is None:
        raise InvalidEvent("role", f"{sent_role!r:.80} is not a known role: one of {', '.join(ROLES)}")
    extra = {name: value for name, value in sent.items() if name not in _FIELDS and name != "role"}
    if sent_role != role:
        extra["role"] = sent_role
    fields: dict[str, Any] = {}
    for name, kind in _FIELDS.items():
        if name in sent:
            (fields if isinstance(sent[name], kind) else extra)[name] = sent[name]
    default_order = list(_message(str(role), {name: fields.get(name) for name in _FIELDS}, extra))
    index_of = {name: index for index, name in enumerate(default_order)}
    sent_order = None if default_order == list(sent) else [index_of[name] for name in sent]
    return MessageAdded(role=role, given_id=given_id, extra=extra or None, sent_order=sent_order, **fields)


def sent_message(event: MessageAdded) -> dict[str, Any]:
    """Return the message of an event as it was sent.

    Raises:
        InputError: it is not a MessageAdded.
    """
    if not isinstance(event, MessageAdded):
        raise InputError(f"event: expected a MessageAdded, got a {type(event).__name__}")
    fields = {"content": event.content, "parts": event.parts, "metadata": event.metadata}
    return _message(str(event.role), fields, event.extra, event.sent_order)


def sent_from_row(
    role: str,
    content: str,
    parts: list[Any] | None,
    metadata: dict[str, Any] | None,
    extra: dict[str, Any] | None,
    sent_order: object = None,
) -> dict[str, Any]:
    """Return a message as it was sent, from its row in the table ``messages``.

    The column ``content`` is never null, and contains the text of the parts if there are parts. So a ``content`` that
    was sent beside parts, or was empty, is in ``extra`` (see ``messages.sql``).
    """
    rest = dict(extra or {})
    text: str | None = content if parts is None and content else None
    if isinstance(rest.get("content"), str):  # put there by the projection, not by message_from_sent
        text = rest.pop("content")
    elif "content" in rest:
        text = None
    return _message(role, {"content": text, "parts": parts, "metadata": metadata}, rest, sent_order)


def _message(
    role: str, fields: dict[str, Any], extra: dict[str, Any] | None, sent_order: object = None
) -> dict[str, Any]:
    """Return the message with these members, in the order in which they were sent."""
    message = {"role": role} | {name: value for name, value in fields.items() if value is not None} | (extra or {})
    names = list(message)
    return message if sent_order is None else {name: message[name] for name in arranged(names, sent_order)}
