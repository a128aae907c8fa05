"""Conversations of an application that serves the A2A demo's endpoints, or of a manager in this process.

The demo's server replaces a file part by one that names ``/message/file/ID``, in its manager's own messages too, and
keeps the part itself apart. What it serves there is the file's bytes for an image, and their base64 for anything else.

Ids are free text there: a task may name a context that no conversation has, or none, and several tasks may have one id.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import inspect
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from agent_manager.http_client import load_json, open_client
from agent_manager.importers.chat_log import read_time
from agent_manager.importers.source import (
    Json,
    SourceConversation,
    SourceMessage,
    SourceUnreadable,
    canonical_card,
    canonical_message,
    canonical_task,
    context_id,
    message_id,
    task_id_of,
    text_member,
)
from eventstore.errors import printable
from eventstore.json_text import equal
from eventstore.urls import check_url, show_name, show_url

# Instances of an application's classes as plain JSON, whatever they are made with


def plain(value: Any) -> Any:
    """The JSON of a value: of models of pydantic and protobuf as they are on the wire, and of what holds them.

    Raises:
        SourceUnreadable: there is something in it that has no JSON.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, BaseModel):
        return _of_model(value)
    if hasattr(value, "DESCRIPTOR"):
        return _of_protobuf(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items() if not name.startswith("_")}
    raise SourceUnreadable(f"a {type(value).__name__} has no JSON form: give models of pydantic or protobuf, or dicts")


def _of_model(value: BaseModel) -> Any:
    try:
        return value.model_dump(mode="json", by_alias=True)
    except (
        PydanticSerializationError
    ):  # it holds something else than models, such as a conversation of protobuf messages
        fields = type(value).model_fields.items()
        members = {field.serialization_alias or name: getattr(value, name) for name, field in fields}
        return plain(members | (value.model_extra or {}))


def _of_protobuf(value: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(value)


# Files that an application's server took out of the messages it listed, and put back into them here

LOCAL = "/message/file/"
"""How the address of a file begins that the application's server keeps."""


def local_file(part: Any) -> str | None:
    """The id of the file that a part refers to, where the application's server keeps it."""
    if not isinstance(part, dict):
        return None
    file = part.get("file")
    address = file.get("uri") if isinstance(file, dict) else part.get("url")
    return address.removeprefix(LOCAL) if isinstance(address, str) and address.startswith(LOCAL) else None


def put_back(part: Json, kept: Json) -> Json:
    """The part with the file of the one that was kept."""
    kept = kept.get("root", kept)
    if "file" in kept:
        return part | {"file": {name: value for name, value in kept["file"].items() if value is not None}}
    return {**{name: value for name, value in part.items() if name != "url"}, **kept}


def with_bytes(part: Json, body: bytes) -> Json:
    """The part with the file that the server gave."""
    media_type = _media_type(part)
    text = base64.b64encode(body).decode() if "image" in media_type or not _is_base64(body) else body.decode()
    if "file" in part:
        return part | {"file": {**{n: v for n, v in part["file"].items() if n != "uri"}, "bytes": text}}
    return {**{name: value for name, value in part.items() if name != "url"}, "raw": text}


def same_but_for_files(stored: Json, source: Json, fetched: list[int]) -> bool:
    """Whether a message is the stored one, as far as the source's server has left of it.

    Of a file that it put aside it knows bytes and media type, not the name; of one that it did not give back, nothing.
    """
    ours, theirs = stored.get("parts"), source.get("parts")
    if not isinstance(ours, list) or not isinstance(theirs, list) or len(ours) != len(theirs):
        return False
    for place, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if local_file(our) is not None or local_file(their) is not None:
            continue
        if not (_content(our) == _content(their) if place in fetched else equal(our, their)):
            return False
    return equal(stored | {"parts": []}, source | {"parts": []})


def parts_of_task(task: Json) -> Iterator[list[Any]]:
    """The lists of parts in a task: of its status message, its history and its artifacts."""
    status = task.get("status")
    said = status.get("message") if isinstance(status, dict) else None
    for holder in (said, *(task.get("history") or ()), *(task.get("artifacts") or ())):
        parts = holder.get("parts") if isinstance(holder, dict) else None
        if isinstance(parts, list):
            yield parts


def same_but_for_names(stored: Any, source: Any) -> bool:
    """Whether two tasks are the same as far as the source's server has left the files in the second."""
    if isinstance(stored, dict) and isinstance(source, dict):
        if local_file(stored) is not None or local_file(source) is not None:
            return True
        if _is_file(stored) and _is_file(source):
            return _content(stored) == _content(source)
        return stored.keys() == source.keys() and all(same_but_for_names(stored[one], source[one]) for one in stored)
    if isinstance(stored, list) and isinstance(source, list):
        return len(stored) == len(source) and all(map(same_but_for_names, stored, source))
    return equal(stored, source)


def _is_file(part: Json) -> bool:
    return isinstance(part.get("file"), dict) or "raw" in part


def _content(part: Any) -> tuple[str, Any]:
    if not isinstance(part, dict):
        return "", part
    file = part.get("file")
    return _media_type(part), (file.get("bytes", file.get("uri")) if isinstance(file, dict) else part.get("raw"))


def _media_type(part: Json) -> str:
    file = part.get("file")
    place = file if isinstance(file, dict) else part
    return str(place.get("mimeType") or place.get("mediaType") or "")


def _is_base64(body: bytes) -> bool:
    try:
        return base64.b64encode(base64.b64decode(body, validate=True)) == body
    except (binascii.Error, ValueError):
        return False


# What a manager lists apart (conversations, tasks, events) put together by conversation

WITHOUT_CONTEXT = "without-context"
"""The conversation of tasks and messages that name no context, and that none claims."""


def grouped(
    conversations: Iterable[Json], tasks: Iterable[Json], events: Iterable[Json], strays: Iterable[Json] = ()
) -> list[SourceConversation]:
    """The conversations with their tasks and times.

    Args:
        conversations: ``conversation_id``, ``is_active``, ``name``, ``task_ids`` and ``messages``.
        tasks: as they are on the wire.
        events: ``content``, a message, and ``timestamp``, seconds since 1970.
        strays: messages that may stand in no conversation.
    """
    found: dict[str, SourceConversation] = {}
    owners: dict[str, str] = {}
    times = _Times(events)
    for plain in conversations:
        given_id = text_member(plain, "conversation_id", "conversationId")
        kept = found.setdefault(given_id, SourceConversation(given_id))
        kept.name = plain.get("name") or ""
        kept.is_active = plain.get("is_active", plain.get("isActive")) is not False
        for message in map(canonical_message, plain.get("messages") or ()):
            kept.messages.append(SourceMessage(message, times.of(message, kept.messages)))
        named = [*(plain.get("task_ids") or ()), *(task_id_of(one.wire) for one in kept.messages)]
        owners |= {task_id: given_id for task_id in named if task_id and task_id not in owners}
    for task in map(canonical_task, tasks):
        owner = context_id(task)
        if owner not in found:
            owner = owners.get(text_member(task, "id"), owner) or WITHOUT_CONTEXT
        found.setdefault(owner, SourceConversation(owner)).tasks.append(task)
    _add_strays(found, strays, times)
    for conversation in found.values():
        known = [message.time for message in conversation.messages if message.time is not None]
        conversation.created_at = min(known, default=None)
    return list(found.values())


def _add_strays(found: dict[str, SourceConversation], strays: Iterable[Json], times: _Times) -> None:
    placed: dict[str, list[Json]] = {}
    for conversation in found.values():
        for message in conversation.messages:
            placed.setdefault(message_id(message.wire), []).append(message.wire)
    for stray in map(canonical_message, strays):
        if not any(equal(stray, known) for known in placed.get(message_id(stray), ())):
            owner = context_id(stray) or WITHOUT_CONTEXT
            messages = found.setdefault(owner, SourceConversation(owner)).messages
            messages.append(SourceMessage(stray, times.of(stray, messages)))


class _Times:
    """When messages were seen. Ids repeat: of several times a message has the first not before that of the last one."""

    def __init__(self, events: Iterable[Json]) -> None:
        self._left: dict[tuple[str, str], list[datetime]] = {}
        for event in events:
            content, moment = event.get("content"), read_time(event.get("timestamp"))
            if isinstance(content, dict) and moment is not None and message_id(content):
                self._left.setdefault((message_id(content), context_id(content)), []).append(moment)

    def of(self, message: Json, before: list[SourceMessage]) -> datetime | None:
        """The time of a message that follows those; no time is given twice."""
        left = self._left.get((message_id(message), context_id(message)), [])
        if not left:
            return None
        last = next((one.time for one in reversed(before) if one.time is not None), left[0])
        found = next((moment for moment in left if moment >= last), None)
        if found is not None:
            left.remove(found)
        return found


# The conversations of a manager that runs in this process: the demo application's own, ours, or one like them


class ManagerSource:
    """What a manager holds, read as it stands when it is asked.

    Args:
        manager: has ``conversations`` and, if it likes, ``tasks``, ``events`` and ``agents``: as attributes, properties
            or methods, async or not; of what the demo application's hides, ``_messages`` and ``_events`` are read too.
        files: the parts that the application's server has put aside and replaced by ``/message/file/…``, by their id
            (the demo's ``ConversationServer._file_cache``).
    """

    def __init__(self, manager: Any, files: Mapping[str, Any] | None = None) -> None:
        self.name = type(manager).__name__
        self._manager = manager
        self._files = files or {}

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        if not hasattr(self._manager, "conversations"):
            raise SourceUnreadable(f"{self.name} has no conversations: give a manager of conversations")
        listed = [plain(one) for one in await self._list("conversations")]
        events = await self._list("events") or await self._list("_events")
        found = grouped(
            listed,
            [plain(one) for one in await self._list("tasks")],
            [plain(one) for one in events],
            [plain(one) for one in await self._list("_messages")],
        )
        for conversation in found:
            for message in conversation.messages:
                message.fetched = self._put_back(message.wire.get("parts"))
            for place, task in enumerate(conversation.tasks):
                apart = [self._put_back(parts) for parts in parts_of_task(task)]
                if any(apart):
                    conversation.fetched_tasks.append(place)
            yield conversation

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return [canonical_card(plain(card)) for card in await self._list("agents")]

    async def pending(self) -> int:
        """See :class:`Source`."""
        return len(await self._list("get_pending_messages"))

    async def _list(self, name: str) -> list[Any]:
        """What an attribute, property or method holds; a copy, for the application may go on meanwhile."""
        value = getattr(self._manager, name, None)
        if callable(value):
            value = value()
        if inspect.isawaitable(value):
            value = await value
        if isinstance(value, Mapping):
            value = value.values()
        return list(value) if isinstance(value, Iterable) else []

    def _put_back(self, parts: Any) -> list[int]:
        """Puts the files of these parts back; the places of those that the application's server keeps apart."""
        apart = []
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if (file_id := local_file(part)) is not None:
                apart.append(place)
                if file_id in self._files:
                    parts[place] = put_back(part, plain(self._files[file_id]))
        return apart


# The conversations of an application that serves the demo's endpoints

SECONDS = 60.0
"""How long an answer may take: the demo's lists everything in one."""
MAX_BYTES = 1024 * 1024 * 1024
"""Of such an answer, decoded."""


class EndpointSource:
    """What an application answers at ``/conversation/list`` and the other endpoints of the demo.

    Open it as a context manager.

    Args:
        url: of the application, such as ``http://localhost:12000``.
        keep_alive: use a connection again. On a used connection a server that sends head and body in two packets waits
            up to 40 ms for the client's acknowledgement, or does not, by chance.

    Raises:
        SourceUnreadable: the URL is none, nothing answers there, or something else does.
    """

    def __init__(self, url: str, *, keep_alive: bool = True) -> None:
        if not url.startswith(("http://", "https://")):
            raise SourceUnreadable(
                f"{show_name(url)!r} is not a URL: give the application's, such as http://localhost:12000"
            )
        self._url = check_url(url, "the application's URL").rstrip("/")
        self.name = show_url(self._url)
        limits = httpx.Limits() if keep_alive else httpx.Limits(max_keepalive_connections=0)
        self._client = open_client(limit=MAX_BYTES, timeout=SECONDS, limits=limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def conversations(self) -> AsyncIterator[SourceConversation]:
        """See :class:`Source`."""
        listed = await self._objects("conversation/list")
        for plain in listed:
            if not plain.get("messages"):
                given_id = text_member(plain, "conversation_id", "conversationId")
                plain["messages"] = await self._objects("message/list", given_id)
        found = grouped(listed, await self._objects("task/list"), await self._objects("events/get"))
        for conversation in found:
            for message in conversation.messages:
                message.fetched = await self._put_back(message.wire.get("parts"))
                message.wire = canonical_message(message.wire)
            for place, task in enumerate(conversation.tasks):
                apart = [await self._put_back(parts) for parts in parts_of_task(task)]
                if any(apart):
                    conversation.fetched_tasks.append(place)
            yield conversation

    async def agents(self) -> list[Json]:
        """See :class:`Source`."""
        return [canonical_card(card) for card in await self._objects("agent/list")]

    async def pending(self) -> int:
        """See :class:`Source`."""
        return len(await self.ask("message/pending") or ())

    async def ask(self, method: str, params: Any = None) -> Any:
        """The result that an endpoint gives.

        Raises:
            SourceUnreadable: it gives none.
        """
        request = {"jsonrpc": "2.0", "id": uuid4().hex, "method": method, "params": params}
        response = await self._send("POST", f"/{method}", json=request)
        try:
            answer = load_json(response.content)
        except ValueError as error:
            why = (
                f"{self.name}/{method} did not answer in JSON ({printable(str(error))}): is the URL the application's?"
            )
            raise SourceUnreadable(why) from None
        if not isinstance(answer, dict) or answer.get("error") is not None:
            said = printable(str(answer), longest=200)
            raise SourceUnreadable(f"{self.name}/{method} answered with an error: {said}")
        return answer.get("result")

    async def _objects(self, method: str, params: Any = None) -> list[Json]:
        result = await self.ask(method, params) or []
        if not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
            raise SourceUnreadable(f"{self.name}/{method} gave no list of objects: is the URL the application's?")
        return result

    async def _put_back(self, parts: Any) -> list[int]:
        """Fetches the files of these parts; the places of those that the application keeps apart."""
        apart = []
        for place, part in enumerate(parts if isinstance(parts, list) else ()):
            if (file_id := local_file(part)) is None:
                continue
            apart.append(place)
            # The demo answers 500 for a file that it knows by its address only: that part stays as it is, and is named
            # when it is taken over, unless the store has it already.
            with suppress(SourceUnreadable):
                parts[place] = with_bytes(part, (await self._send("GET", LOCAL + file_id)).content)
        return apart

    async def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, self._url + path, **how)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            why = printable(str(error) or type(error).__name__)
            raise SourceUnreadable(f"{self.name}{path} cannot be reached: {why}: start the application") from None
        if response.status_code != httpx.codes.OK:
            raise SourceUnreadable(f"{self.name}{path} answered {response.status_code}: see the application's log")
        return response
