"""In which shape of A2A the demo's endpoints speak, and messages that were sent in no shape of A2A in one.

Clients read all of a list or nothing: one message that they do not understand costs them the others. So a client gets
everything in the shape that it names (A2A-Version), else a conversation in that of its first message, which is its
user's, also what an agent of the other version has said; and a list of conversations of both shapes in 0.3, which a
client without a version speaks. And conversations that were imported, or written through
``/v1``, hold messages of other kinds, with ``content`` and further roles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from starlette.requests import Request

from agent_manager.agents.shapes import message_in_shape, text_part
from agent_manager.agents.validity import fault_of
from agent_manager.agents.wire import Shape, agent_role
from agent_manager.http.models.common import Json
from agent_manager.manager.happened import Summary
from agent_manager.manager.shapes.repair import repaired
from agent_manager.manager.views import ConversationView
from eventstore.errors import InputError
from eventstore.ids import derived_uuid

_ROLES = ("user", "agent", "ROLE_USER", "ROLE_AGENT")


def asked_shape(request: Request) -> Shape | None:
    """The shape that the client names; None where it names none.

    Raises:
        InputError: it names another.
    """
    said = request.headers.get("a2a-version", "").strip()
    if not said:
        return None
    if said == "0.3" or said.startswith("0.3."):
        return "0.3"
    if said == "1" or said.startswith("1."):
        return "1.0"
    raise InputError(f"A2A-Version: {said!r:.40} is unknown: send 0.3 or 1.0, or leave it out")


def as_message(sent: Json, shape: Shape, unnamed: str) -> Json:
    """A message in that shape; ``unnamed`` is its id where it has none."""
    message = dict(sent)
    if not isinstance(message.get("parts"), list):
        message["parts"] = _parts(message.pop("content", None), shape)
    if message.get("role") not in _ROLES:
        message["role"] = agent_role(shape)
    if not isinstance(message.get("messageId"), str):
        message["messageId"] = unnamed
    told = message_in_shape(message, shape)
    return told if fault_of(told, shape) is None else repaired(told, shape, unnamed)


def unnamed(conversation_id: UUID, number: int) -> str:
    """The id of a message without one, by its number in its conversation."""
    return str(derived_uuid("message without an id", str(conversation_id), number))


def shape_of_list(conversations: Iterable[Summary]) -> Shape:
    """The shape of a list of many conversations, for clients that read one: 1.x where all are in it, else 0.3."""
    own = {one.shape for one in conversations if one.shape is not None and not one.is_deleted}
    return "1.0" if own == {"1.0"} else "0.3"


def messages_of(view: ConversationView, shape: Shape) -> Iterator[Json]:
    """The messages of a conversation in that shape."""
    return (as_message(message, shape, unnamed(view.id, n)) for n, message in enumerate(view.messages))


def _parts(content: Any, shape: Shape) -> list[Json]:
    if isinstance(content, str):
        return [text_part(content, shape)] if content else []
    items = content if isinstance(content, list) else []
    texts = [item.get("text") for item in items if isinstance(item, dict)]
    return [text_part(text, shape) for text in texts if isinstance(text, str)]
