"""The application's A2A classes: plain JSON to instances of them, and back.

They are stored, and given back as JSON, as they were sent. Only what a class cannot hold is changed for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ValidationError

from agent_manager import a2a, default_classes
from agent_manager.a2a import (
    Version,
    agent_role,
    invalid_part,
    message_in_version,
    minimal_card,
    readable_card,
    role_in_version,
    task_in_version,
    text_part,
    with_interfaces,
)
from agent_manager.agents.a2a_client import TYPES, is_imported_by_application
from agent_manager.conversation import ConversationView, EventView, Json
from eventstore.errors import InputError, printable

# Instances of pydantic models and of protobuf messages as plain JSON, and back


def to_wire(value: Any) -> Json:
    """An instance, whatever its class, as it is on the wire. A dictionary is taken for that already.

    Raises:
        InputError: it is neither a model, nor a protobuf message, nor a dictionary, or cannot be written as JSON.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel):
        # What was never set stays away; what was set to None is sent as null by nobody, and refused by some.
        # Values that the model did not expect are no matter for a warning: as JSON they are checked like all others.
        return _written(value, lambda: value.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False))
    if hasattr(type(value), "DESCRIPTOR"):
        return _written(value, lambda: _json_format().MessageToDict(value))
    raise InputError(
        f"a {type(value).__name__} is no message: give an instance of the application's class, or its JSON as a dict"
    )


def _written(value: Any, write: Callable[[], Json]) -> Json:
    try:
        return write()
    except (ValueError, TypeError, RecursionError) as error:  # among them pydantic's, and those of lone surrogates
        raise InputError(f"this {type(value).__name__} cannot be written as JSON: {printable(str(error))}") from None


def from_wire(kind: type, sent: Json) -> Any:
    """An instance of a pydantic or protobuf class.

    Raises:
        InputError: what is stored has no place in this class.
    """
    try:
        if hasattr(kind, "DESCRIPTOR"):
            return _parsed(kind, sent)
        return kind.model_validate(sent)  # type: ignore[attr-defined]
    except (ValidationError, ValueError, TypeError) as error:
        raise InputError(f"what is stored does not fit the application's class {kind.__name__}: {error}") from None


def _parsed(kind: type, sent: Json) -> Any:
    json_format = _json_format()
    try:
        return json_format.ParseDict(sent, kind(), ignore_unknown_fields=True)
    except json_format.Error as error:  # which is no ValueError
        raise ValueError(str(error)) from None


def is_protobuf(kind: type) -> bool:
    """Whether the class is one of protobuf, as a2a-sdk 1.x has them."""
    return hasattr(kind, "DESCRIPTOR")


def _json_format() -> Any:
    return import_module("google.protobuf.json_format")


# Messages that A2A has no class for, such as those of imported chats, as the nearest that it has

_IDS = ("contextId", "taskId")


def repaired(sent: Json, version: Version, message_id: str) -> Json:
    """The message with the members that every message of A2A has.

    Args:
        message_id: for one that has none.
    """
    given = sent.get("messageId")
    message: Json = {
        "role": role_in_version("user", version) if sent.get("role") in ("user", "ROLE_USER") else agent_role(version),
        "messageId": given if isinstance(given, str) and given else message_id,
        "parts": _parts(sent, version),
    }
    message |= {name: sent[name] for name in _IDS if isinstance(sent.get(name), str)}
    if isinstance(sent.get("metadata"), dict):
        message["metadata"] = sent["metadata"]
    return message | {"kind": "message"} if version == "0.3" else message


def _parts(sent: Json, version: Version) -> list[Json]:
    said = sent.get("parts", sent.get("content"))
    items = said if isinstance(said, list) else [] if said is None else [said]
    calls = {name: sent[name] for name in ("tool_calls", "function_call") if sent.get(name) is not None}
    return [_part(item, version) for item in [*items, *([calls] if calls else [])]]


def _part(item: Any, version: Version) -> Json:
    if isinstance(item, dict) and ("kind" in item) == (version == "0.3") and invalid_part(item, version) is None:
        return item
    text = item.get("text") if isinstance(item, dict) else item
    if isinstance(text, str):
        return text_part(text, version)
    data = item if isinstance(item, dict) else {"value": item}
    return {"kind": "data", "data": data} if version == "0.3" else {"data": data}


# One application's classes


@dataclass(frozen=True)
class WireClasses:
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
    version: a2a.Version | None

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
            shaped = sent if a2a.version_of(sent) == self.version else message_in_version(sent, self.version)
            return from_wire(self.message, {"messageId": message_id} | shaped)
        except InputError:
            return from_wire(self.message, repaired(sent, self.version or a2a.version_of(sent), message_id))

    def to_task(self, sent: Json) -> Any:
        """A task; one that was sent in the other shape is translated."""
        if self.version is not None:
            return from_wire(self.task, task_in_version(sent, self.version))
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
        return from_wire(self.card, complete(minimal_card(sent)))

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


# Which classes an application works with: those it passes, those it has imported, or our own

_DEMO_TYPES = "service.types"
"""The module of the A2A demo application."""
_NAMES = ("Message", "Task", "AgentCard")


def choose_classes(types: Any = None) -> WireClasses:
    """The shape of a module, such as ``service.types`` or ``a2a.types``; what it does not have is taken from our own.

    Args:
        types: None is the first of those two modules that the application has imported by now, or none. That a remote
            agent is reached through a2a-sdk, and so imports it, does not count.
    """
    if types is None:
        loaded = (sys.modules.get(_DEMO_TYPES), sys.modules[TYPES] if is_imported_by_application() else None)
        types = next((module for module in loaded if hasattr(module, "Message")), None)
    found = SimpleNamespace() if types is None else types
    message, task, card = (getattr(found, name, getattr(default_classes, name)) for name in _NAMES)
    return WireClasses(
        message,
        task,
        card,
        getattr(found, "Conversation", default_classes.Conversation),
        getattr(found, "Event", default_classes.Event),
        None if message is default_classes.Message else "1.0" if is_protobuf(message) else "0.3",
    )
