"""Values of a2a-sdk as JSON: protobuf in 1.x, pydantic in 0.3; large files in them are stored beside the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from operator import eq
from typing import Any, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from agent_manager.a2a import Json
from agent_manager.adapters.blobs import files_in, load_files, store_files
from eventstore import EventStore
from eventstore.errors import InputError

try:
    from a2a.types import a2a_pb2 as _types
    from google.protobuf.json_format import MessageToDict, ParseDict
    from google.protobuf.message import DecodeError
except ImportError:  # 0.3
    from a2a import types as _types  # type: ignore[no-redef]  # one of the two is there

types: Any = _types

OwnerResolver: TypeAlias = Callable[[Any], str]
"""A function that returns the name of the user of a call's context; an empty text if nobody is authenticated."""
Converted: TypeAlias = tuple[Any, Json]
"""A copy of a task, and its JSON with references to files."""

HAS_TASK_ID = hasattr(types, "DESCRIPTOR")
"""True if the class of a push-notification setting has the task's id, as from a2a-sdk 1.0 on."""
_DEEPEST = 1000
"""Levels of messages in a value that is read; one with more than 100 is refused when it is saved."""
CONFIG_CLASS = types.TaskPushNotificationConfig if HAS_TASK_ID else types.PushNotificationConfig
"""The class of a setting of push notifications."""


def user_name(context: Any) -> str:
    """Return the name of the user of a call; an empty text if nobody is authenticated."""
    return "" if context is None else str(context.user.user_name)


def to_json(value: Any) -> Json:
    """Return a value of a2a-sdk as JSON.

    Raises:
        InputError: it is nested too deep to be sent to a client, or read back.
    """
    if not isinstance(value, BaseModel):
        try:
            type(value).FromString(value.SerializeToString())
        except DecodeError:
            raise InputError(f"this {type(value).__name__} is nested too deep: make its metadata flatter") from None
        converted: Json = in_stored_order(MessageToDict(value))
        return converted
    json = value.model_dump(mode="json", by_alias=True, exclude_none=True)
    is_whole = type(value).model_validate(json) == value  # there may be a null inside of the metadata
    return json if is_whole else value.model_dump(mode="json", by_alias=True)


def in_stored_order(json: Any) -> Any:
    """Return JSON with members in the order of ``jsonb``: those of protobuf have none that the store should keep."""
    if isinstance(json, dict):
        names = sorted(json, key=lambda name: (len(name.encode()), name))
        return {name: in_stored_order(json[name]) for name in names}
    return [in_stored_order(item) for item in json] if isinstance(json, list) else json


def from_json(json: Json, kind: Any) -> Any:
    """Return the value of a class of a2a-sdk from its JSON."""
    if issubclass(kind, BaseModel):
        return kind.model_validate(json)
    return ParseDict(json, kind(), max_recursion_depth=_DEEPEST)


async def stored_json(store: EventStore, value: Any, conversation_id: UUID) -> Json:
    """Return a value as JSON with references to its large files, which are stored for a conversation.

    Raises:
        InputError: a part refers to a stored file already.
        BlobTooLarge: a file is larger than the store allows.
    """
    json = to_json(value)
    for each in _with_parts(json):
        each["parts"] = await store_files(store, each["parts"], conversation_id)
    return json


def referred_files(json: Json) -> set[bytes]:
    """Return the hashes of the files that a task, a message or an update refers to."""
    return set().union(*(files_in(each["parts"]) for each in _with_parts(json)))


async def loaded(store: EventStore, json: Json, kind: Any, conversation_id: UUID) -> Any:
    """Return the value of a class of a2a-sdk from its JSON, with the files of the conversation to which that refers."""
    if any("metadata" in part for each in _with_parts(json) for part in each["parts"]):
        json = deepcopy(json)
        await load_files(store, [each["parts"] for each in _with_parts(json)], conversation_id)
    return from_json(json, kind)


async def converted(store: EventStore, task: Any, before: Converted | None, conversation_id: UUID) -> Converted:
    """Return a task as JSON; messages and artifacts that were converted before are not converted again."""
    if isinstance(task, BaseModel):
        return task, await stored_json(store, task, conversation_id)
    copy = types.Task()
    copy.CopyFrom(task)
    if before is None:
        return copy, await stored_json(store, copy, conversation_id)
    rest = types.Task()
    rest.CopyFrom(task)
    kept: Json = {}
    for name in ("history", "artifacts"):
        same = [*map(eq, getattr(before[0], name), getattr(task, name)), False].index(False)
        del getattr(rest, name)[:same]
        kept[name] = before[1].get(name, [])[:same]
    json = await stored_json(store, rest, conversation_id)
    return copy, json | {name: [*items, *json.get(name, [])] for name, items in kept.items() if items}


def _with_parts(json: Json) -> Iterator[Json]:
    """Yield the objects with parts in a task, a message or an update."""
    status = json.get("status")
    message = status.get("message") if isinstance(status, dict) else None
    for each in (json, message, json.get("artifact"), *json.get("history", ()), *json.get("artifacts", ())):
        if isinstance(each, dict) and isinstance(each.get("parts"), list):
            yield each
