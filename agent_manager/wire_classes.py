"""Conversion between plain wire JSON and the application's A2A classes.

Messages, tasks and cards are stored, and returned as JSON, as they were sent. Only values that a class cannot hold are
changed for it.
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

from agent_manager import default_classes
from agent_manager.a2a import (
    Json,
    Version,
    message_in_version,
    minimal_card,
    readable_card,
    repaired,
    task_in_version,
    version_of,
    with_interfaces,
)
from agent_manager.agents.a2a_client import TYPES, is_imported_by_application
from agent_manager.conversation_fold import ConversationView, EventView
from eventstore.errors import InputError, printable

_DEMO_TYPES = "service.types"
"""The module with the classes of the A2A demo application."""


def choose_classes(types: Any = None) -> WireClasses:
    """Return the classes of a module, such as ``service.types`` or ``a2a.types``; defaults for those that it lacks.

    Args:
        types: by default, the first of those two modules that the application has imported by now, if any. An import
            of a2a-sdk for talking to a remote agent does not count.
    """
    if types is None:
        imported = (sys.modules.get(_DEMO_TYPES), sys.modules[TYPES] if is_imported_by_application() else None)
        types = next((module for module in imported if hasattr(module, "Message")), SimpleNamespace())
    message, task, card, conversation, event = (
        getattr(types, name, getattr(default_classes, name))
        for name in ("Message", "Task", "AgentCard", "Conversation", "Event")
    )
    version: Version | None = None
    if message is not default_classes.Message:
        version = "1.0" if is_protobuf(message) else "0.3"
    return WireClasses(message, task, card, conversation, event, version)


@dataclass(frozen=True)
class WireClasses:
    """The classes that an application works with.

    Attributes:
        message, task, card: A2A's, of one of its versions.
        conversation, event: the application's, built from keywords.
        version: the version of A2A that the classes read; None if they read both.
    """

    message: type
    task: type
    card: type
    conversation: Any
    event: Any
    version: Version | None

    def to_message(self, message: Json, message_id: str = "") -> Any:
        """Return a message as an instance, converted from the other version if necessary.

        Args:
            message_id: the id of a message that has none.
        """
        try:
            if self.version is None:
                return from_wire(self.message, message)
            is_same = version_of(message) == self.version
            converted = message if is_same else message_in_version(message, self.version)
            return from_wire(self.message, {"messageId": message_id} | converted)
        except InputError:
            return from_wire(self.message, repaired(message, self.version or version_of(message), message_id))

    def to_task(self, task: Json) -> Any:
        """Return a task as an instance, converted from the other version if necessary.

        An agent or an application may have stored any values in most members: what does not fit the class is left out.
        """
        version = self.version or version_of(task)
        converted = task if self.version is None else task_in_version(task, version)
        with suppress(InputError):
            return from_wire(self.task, converted)
        if isinstance(converted.get("history"), list):
            history = [repaired(each, version, "") for each in converted["history"] if isinstance(each, dict)]
            with suppress(InputError):
                return from_wire(self.task, converted | {"history": history})
        status = {"state": converted["status"]["state"]}
        return from_wire(self.task, {"id": task["id"], "contextId": str(task.get("contextId", "")), "status": status})

    def to_card(self, card: Json) -> Any:
        """Return an agent's card as an instance, with as many of its members as the class can hold."""
        complete = with_interfaces if self.version == "1.0" else dict
        for each in (card, readable_card(card)):
            with suppress(InputError):
                return from_wire(self.card, complete(each))
        return from_wire(self.card, complete(minimal_card(card)))

    def to_conversation(self, view: ConversationView) -> Any:
        """Return a conversation as an instance."""
        return self.conversation(
            conversation_id=view.conversation_id,
            is_active=view.is_active,
            name=view.name,
            task_ids=list(view.task_ids),
            messages=list(map(self.to_message, view.messages, map(str, view.event_ids))),
        )

    def to_event(self, view: EventView) -> Any:
        """Return an event as an instance."""
        content = self.to_message(view.content, view.id)
        return self.event(id=view.id, actor=view.actor, content=content, timestamp=view.timestamp.timestamp())

    def attach(self, message: Any, stored: Json) -> Any:
        """Set, in a message instance, the context and task under which it is stored; return the instance."""
        wire = to_wire(message)
        for attribute, member in (("context_id", "contextId"), ("task_id", "taskId")):
            if stored.get(member) == wire.get(member):
                continue
            if isinstance(message, dict):
                message[member] = stored[member]
            else:
                setattr(message, attribute, stored[member])
        return message


def is_protobuf(kind: type) -> bool:
    """Return whether a class is one of protobuf, as those of a2a-sdk 1.x are."""
    return hasattr(kind, "DESCRIPTOR")


def to_wire(value: Any) -> Json:
    """Return an instance as wire JSON; a dictionary is returned as it is.

    Raises:
        InputError: the value is not a model, protobuf message or dictionary, or cannot be expressed as JSON.
    """
    if isinstance(value, dict):
        return value
    if isinstance(value, BaseModel):
        # Members that are None are left out: no client sends them as null, and some reject null. Values of unexpected
        # types cause no warning: as JSON they are checked like all others.
        return _dumped(value, lambda: value.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False))
    if is_protobuf(type(value)):
        return _dumped(value, lambda: _json_format().MessageToDict(value))
    raise InputError(
        f"a {type(value).__name__} is not a message: give an instance of the application's class, or its JSON as a dict"
    )


def _dumped(value: Any, dump: Callable[[], Json]) -> Json:
    try:
        return dump()
    except (ValueError, TypeError, RecursionError) as error:  # also those of pydantic, and of lone surrogates
        raise InputError(f"this {type(value).__name__} cannot be written as JSON: {printable(str(error))}") from None


def from_wire(kind: type[Any], wire: Json) -> Any:
    """Return an instance of a pydantic or protobuf class.

    Raises:
        InputError: the JSON does not fit the class.
    """
    problem = f"what is stored does not fit the application's class {kind.__name__}"
    if is_protobuf(kind):
        json_format = _json_format()
        try:
            return json_format.ParseDict(wire, kind(), ignore_unknown_fields=True)
        except (json_format.Error, ValueError, TypeError) as error:
            raise InputError(f"{problem}: {error}") from None
    try:
        return kind.model_validate(wire)
    except (ValidationError, ValueError, TypeError) as error:
        raise InputError(f"{problem}: {error}") from None


def _json_format() -> Any:
    return import_module("google.protobuf.json_format")
