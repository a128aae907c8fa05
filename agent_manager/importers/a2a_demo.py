"""Conversations of an application that serves the A2A demo's endpoints, or of a manager in this process.

When the demo's server lists messages, it replaces a file part by one that names ``/message/file/ID``, in its manager's
own messages too, and stores the file separately. There it serves the bytes of an image, and the base64 of other files.

Ids are free text in the demo: a task may name a context that no conversation has, or none, and several tasks may have
the same id.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import inspect
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from agent_manager.a2a import Json
from agent_manager.http_client import load_json, open_client
from agent_manager.importers.chats import without
from agent_manager.importers.source import (
    Source,
    SourceConversation,
    SourceMessage,
    SourceUnreadable,
    canonical_card,
    canonical_message,
    canonical_task,
    context_id,
    message_id,
    read_time,
    task_id_of,
    text_member,
)
from eventstore.errors import printable
from eventstore.json_text import json_equal
from eventstore.urls import check_url, show_name, show_url

FILE_PREFIX = "/message/file/"
"""The beginning of the address of a file that the demo's server has stored separately."""

WITHOUT_CONTEXT = "without-context"
"""The conversation of tasks and messages that name no context and that no conversation refers to."""

_ENDPOINTS = {
    "conversations": "conversation/list", "tasks": "task/list", "events": "events/get", "agents": "agent/list"
}  # fmt: skip
_TIMEOUT_SECONDS = 60.0
"""The timeout of one response, which is long because the demo lists everything in one."""
_MAX_RESPONSE_BYTES = 1024 * 1024 * 1024


class DemoSource(Source):
    """Conversations that are listed apart from their tasks, events and files, as in the demo's manager."""

    @abstractmethod
    async def objects(self, kind: str) -> list[Json]:
        """Return all objects of a kind as plain JSON: conversations, messages, tasks, events or agents."""

    @abstractmethod
    async def with_file(self, part: Json, file_id: str) -> Json:
        """Return a part with the file of this id, or as it is if the file cannot be found."""

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        grouped = _group(*[await self.objects(kind) for kind in ("conversations", "tasks", "events", "messages")])
        for conversation in grouped:
            for message in conversation.messages:
                message.fetched = await self._add_files(message.wire.get("parts"))
                message.wire = canonical_message(message.wire)
            for index, task in enumerate(conversation.tasks):
                status = task.get("status")
                of_status = status.get("message") if isinstance(status, dict) else None
                holders = (of_status, *(task.get("history") or ()), *(task.get("artifacts") or ()))
                if any([await self._add_files(holder.get("parts")) for holder in holders if isinstance(holder, dict)]):
                    conversation.fetched_tasks.append(index)
            yield conversation

    async def _add_files(self, parts: Any) -> list[int]:
        """Add the files of parts in place and return their indexes, whether they were found or not."""
        fetched = []
        for index, part in enumerate(parts if isinstance(parts, list) else ()):
            if (file_id := separate_file_id(part)) is not None:
                fetched.append(index)
                parts[index] = await self.with_file(part, file_id)
        return fetched

    async def agents(self) -> list[Json]:
        return [canonical_card(card) for card in await self.objects("agents")]


class EndpointSource(DemoSource):
    """The conversations of an application that serves the demo's endpoints.

    Args:
        url: the application's, such as ``http://localhost:12000``.
        keep_alive: whether to reuse connections. On a reused connection a server that sends head and body in two
            packets may wait up to 40 ms for the client's acknowledgement, by chance.

    Raises:
        SourceUnreadable: the URL is not valid, nothing answers, or another kind of server.
    """

    def __init__(self, url: str, *, keep_alive: bool = True) -> None:
        if not url.startswith(("http://", "https://")):
            raise SourceUnreadable(
                f"{show_name(url)!r} is not a URL: give the application's, such as http://localhost:12000"
            )
        self._url = check_url(url, "the application's URL").rstrip("/")
        self.name = show_url(self._url)
        limits = httpx.Limits() if keep_alive else httpx.Limits(max_keepalive_connections=0)
        self._client = open_client(limit=_MAX_RESPONSE_BYTES, timeout=_TIMEOUT_SECONDS, limits=limits)

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def objects(self, kind: str) -> list[Json]:
        if kind == "messages":
            return []  # each conversation lists its own
        listed = await self._list(_ENDPOINTS[kind])
        for conversation in listed if kind == "conversations" else ():
            if not conversation.get("messages"):
                conversation["messages"] = await self._list("message/list", conversation_id(conversation))
        return listed

    async def pending(self) -> int:
        return len(await self.call("message/pending") or ())

    async def call(self, method: str, params: Any = None) -> Any:
        """Return the result of an endpoint. Raise SourceUnreadable if it gives none."""
        request = {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": params}
        response = await self._send("POST", f"/{method}", json=request)
        try:
            answer = load_json(response.content)
        except ValueError as error:
            reason = f"did not answer in JSON ({printable(str(error))}): is the URL the application's?"
            raise SourceUnreadable(f"{self.name}/{method} {reason}") from None
        if not isinstance(answer, dict) or answer.get("error") is not None:
            shown = printable(str(answer), longest=200)
            raise SourceUnreadable(f"{self.name}/{method} answered with an error: {shown}")
        return answer.get("result")

    async def _list(self, method: str, params: Any = None) -> list[Any]:
        result = await self.call(method, params) or []
        if not isinstance(result, list) or not all(isinstance(item, dict) for item in result):
            raise SourceUnreadable(
                f"{self.name}/{method} did not answer with a list of objects: is the URL the application's?"
            )
        return result

    async def with_file(self, part: Json, file_id: str) -> Json:
        # The demo answers 500 for a file if it has only the address. That part stays as it is, and is reported
        # by the import, unless the store has the file already.
        with suppress(SourceUnreadable):
            return _with_bytes(part, (await self._send("GET", FILE_PREFIX + file_id)).content)
        return part

    async def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, self._url + path, **arguments)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = printable(str(error) or type(error).__name__)
            raise SourceUnreadable(f"{self.name}{path} cannot be reached: {reason}: start the application") from None
        if response.status_code != httpx.codes.OK:
            raise SourceUnreadable(f"{self.name}{path} answered {response.status_code}: see the application's log")
        return response


async def is_served(url: str) -> bool:
    """Return whether an application with the demo's endpoints answers at a URL."""
    with suppress(SourceUnreadable):
        async with EndpointSource(url) as application:
            await application.call("conversation/list")
            return True
    return False


class ManagerSource(DemoSource):
    """The conversations of a manager in this process: the demo application's, ours, or one like them.

    Args:
        manager: has ``conversations`` and optionally ``tasks``, ``events``, ``agents`` and ``get_pending_messages``, as
            attributes, properties or methods, async or not. The demo's private ``_messages`` and ``_events`` are read,
            too.
        files: the parts that the application's server has replaced by ``/message/file/…``, by their ids (the demo's
            ``ConversationServer._file_cache``).
    """

    def __init__(self, manager: Any, files: Mapping[str, Any] | None = None) -> None:
        self.name = type(manager).__name__
        self._manager = manager
        self._files = files or {}

    async def objects(self, kind: str) -> list[Json]:
        if kind == "conversations" and not hasattr(self._manager, kind):
            raise SourceUnreadable(f"{self.name} has no conversations: give a manager of conversations")
        names = {"messages": ["_messages"], "events": ["events", "_events"]}.get(kind, [kind])
        values = [values for name in names if (values := await self._values(name))]
        return [to_plain(value) for value in values[0]] if values else []

    async def pending(self) -> int:
        return len(await self._values("get_pending_messages"))

    async def _values(self, name: str) -> list[Any]:
        """Return a copy of what an attribute, property or method holds: the application may change it meanwhile."""
        value = getattr(self._manager, name, None)
        if callable(value):
            value = value()
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, Mapping):
            value = value.values()
        return list(value) if isinstance(value, Iterable) else []

    async def with_file(self, part: Json, file_id: str) -> Json:
        if file_id not in self._files:
            return part
        stored: Json = to_plain(self._files[file_id])
        stored = stored.get("root", stored)
        if "file" in stored:
            return part | {"file": {name: value for name, value in stored["file"].items() if value is not None}}
        return without(part, "url") | stored


# Conversations, tasks and events are listed separately: put together by conversation


def _group(
    conversations: Iterable[Json], tasks: Iterable[Json], events: Iterable[Json], messages: Iterable[Json]
) -> list[SourceConversation]:
    """Return the conversations with their tasks and times.

    The content of an event is a message. Those of ``messages`` that are in no conversation are added to that of their
    context.
    """
    found: dict[str, SourceConversation] = {}
    conversation_of_task: dict[str, str] = {}
    times = _MessageTimes(events)
    for listed in conversations:
        given_id = conversation_id(listed)
        conversation = found.setdefault(given_id, SourceConversation(given_id))
        conversation.name = listed.get("name") or ""
        conversation.is_active = listed.get("is_active", listed.get("isActive")) is not False
        for message in map(canonical_message, listed.get("messages") or ()):
            conversation.messages.append(SourceMessage(message, times.take(message, conversation.messages)))
        named = [*(listed.get("task_ids") or ()), *(task_id_of(message.wire) for message in conversation.messages)]
        for task_id in filter(None, named):
            conversation_of_task.setdefault(task_id, given_id)
    for task in map(canonical_task, tasks):
        owner = context_id(task)
        if owner not in found:
            owner = conversation_of_task.get(text_member(task, "id"), owner) or WITHOUT_CONTEXT
        found.setdefault(owner, SourceConversation(owner)).tasks.append(task)
    _add_further_messages(found, messages, times)
    for conversation in found.values():
        known = [message.time for message in conversation.messages if message.time is not None]
        conversation.created_at = min(known, default=None)
    return list(found.values())


def conversation_id(listed: Json) -> str:
    """Return the id of a conversation, empty if it has none."""
    return text_member(listed, "conversation_id", "conversationId")


def _add_further_messages(found: dict[str, SourceConversation], messages: Iterable[Json], times: _MessageTimes) -> None:
    known: dict[str, list[Json]] = {}
    for conversation in found.values():
        for message in conversation.messages:
            known.setdefault(message_id(message.wire), []).append(message.wire)
    for wire in map(canonical_message, messages):
        if not any(json_equal(wire, other) for other in known.get(message_id(wire), ())):
            owner = context_id(wire) or WITHOUT_CONTEXT
            of_owner = found.setdefault(owner, SourceConversation(owner)).messages
            of_owner.append(SourceMessage(wire, times.take(wire, of_owner)))


class _MessageTimes:
    """The times of events by the messages in them. Ids repeat, so there may be several times for an id."""

    def __init__(self, events: Iterable[Json]) -> None:
        self._times: dict[tuple[str, str], list[datetime]] = {}
        for event in events:
            content, time = event.get("content"), read_time(event.get("timestamp"))
            if isinstance(content, dict) and time is not None and message_id(content):
                self._times.setdefault((message_id(content), context_id(content)), []).append(time)

    def take(self, message: Json, earlier: list[SourceMessage]) -> datetime | None:
        """Return the first time of a message that is not before that of its predecessor, and use it up."""
        times = self._times.get((message_id(message), context_id(message)), [])
        if not times:
            return None
        last = next((known.time for known in reversed(earlier) if known.time is not None), times[0])
        found = next((time for time in times if time >= last), None)
        if found is not None:
            times.remove(found)
        return found


# Files that the demo's server has stored separately


def separate_file_id(part: Any) -> str | None:
    """Return the id of the file of a part that the demo's server has stored separately; None if it has not."""
    if not isinstance(part, dict):
        return None
    file = part.get("file")
    address = file.get("uri") if isinstance(file, dict) else part.get("url")
    return address.removeprefix(FILE_PREFIX) if isinstance(address, str) and address.startswith(FILE_PREFIX) else None


def _with_bytes(part: Json, body: bytes) -> Json:
    """Return a part with the file that the demo's server gave."""
    media_type = _media_type(part)
    text = base64.b64encode(body).decode() if "image" in media_type or not _is_base64(body) else body.decode()
    if "file" in part:
        return part | {"file": without(part["file"], "uri") | {"bytes": text}}
    return without(part, "url") | {"raw": text}


def _is_base64(body: bytes) -> bool:
    try:
        return base64.b64encode(base64.b64decode(body, validate=True)) == body
    except (binascii.Error, ValueError):
        return False


def _media_type(part: Json) -> str:
    file = part.get("file")
    holder = file if isinstance(file, dict) else part
    return str(holder.get("mimeType") or holder.get("mediaType") or "")


def same_but_for_files(stored: Json, message: SourceMessage) -> bool:
    """Return whether a message is the stored one, as far as the demo's server still knows it.

    Of a file that it stored separately it knows bytes and media type, but not the name; of one that it did not give
    back, nothing.
    """
    source = message.wire
    if json_equal(stored, source):
        return True
    stored_parts, source_parts = stored.get("parts"), source.get("parts")
    if not isinstance(stored_parts, list) or not isinstance(source_parts, list):
        return False
    if len(stored_parts) != len(source_parts) or not json_equal(stored | {"parts": []}, source | {"parts": []}):
        return False
    for index, (left, right) in enumerate(zip(stored_parts, source_parts, strict=True)):
        is_file = index in message.fetched or any(separate_file_id(part) is not None for part in (left, right))
        if not (same_but_for_names(left, right) if is_file else json_equal(left, right)):
            return False
    return True


def same_but_for_names(stored: Any, source: Any) -> bool:
    """Return whether two parts or tasks are the same, as far as the demo's server still knows files in the second."""
    if isinstance(stored, dict) and isinstance(source, dict):
        if separate_file_id(stored) is not None or separate_file_id(source) is not None:
            return True
        if _is_file(stored) and _is_file(source):
            return _file_content(stored) == _file_content(source)
        return stored.keys() == source.keys() and all(same_but_for_names(stored[key], source[key]) for key in stored)
    if isinstance(stored, list) and isinstance(source, list):
        return len(stored) == len(source) and all(map(same_but_for_names, stored, source))
    return json_equal(stored, source)


def _is_file(part: Json) -> bool:
    return isinstance(part.get("file"), dict) or "raw" in part


def _file_content(part: Json) -> tuple[str, Any]:
    file = part.get("file")
    return _media_type(part), (file.get("bytes", file.get("uri")) if isinstance(file, dict) else part.get("raw"))


# Instances of an application's own classes as plain JSON


def to_plain(value: Any) -> Any:
    """Return a value as plain JSON: models of pydantic and protobuf as they are on the wire, and what holds them.

    Raises:
        SourceUnreadable: something in it has no JSON form.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): to_plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, BaseModel):
        return _model_to_plain(value)
    if hasattr(value, "DESCRIPTOR"):
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {name: to_plain(member) for name, member in vars(value).items() if not name.startswith("_")}
    raise SourceUnreadable(f"a {type(value).__name__} has no JSON form: give models of pydantic or protobuf, or dicts")


def _model_to_plain(value: BaseModel) -> Any:
    try:
        return value.model_dump(mode="json", by_alias=True)
    except PydanticSerializationError:  # it holds something other than models, such as protobuf messages
        fields = type(value).model_fields.items()
        members = {field.serialization_alias or name: getattr(value, name) for name, field in fields}
        return to_plain(members | (value.model_extra or {}))
