"""Messages and files as the A2A demo's client sends and lists them.

The client writes the Python names of members (``message_id``); A2A's names are different (``messageId``). Only members
that A2A defines are renamed, and only where A2A defines them; data, metadata and unknown members stay as they were
sent.

Clients can read a whole list or nothing of it: one message that they do not understand costs them the others. So all
messages of a list are in one A2A version. A client gets the version that it requests (``A2A-Version``). Otherwise a
conversation is in the version of its first message, which is its user's, even if an agent answered in the other; and a
list of conversations of both versions is in 0.3, which clients that request no version understand. Conversations that
were imported, or written through ``/v1``, also hold messages in no version of A2A, with ``content`` and other roles.

The id of a file is its place in the log: conversation, version, number of the part. So it means the same after a
restart and on every server, and nothing must be stored for it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.a2a import (
    Json,
    Version,
    agent_role,
    invalid_member,
    message_in_version,
    repaired,
    text_part,
    version_of,
)
from agent_manager.agents.updates import renamed
from agent_manager.conversation_fold import ConversationFold, ConversationView, Summary
from agent_manager.manager import Manager
from agent_manager.server.conversation_lookup import visible_ids
from agent_manager.server.response_cache import LARGE_BYTES
from eventstore import ConversationRewound, Event, MessageAdded, sent_message
from eventstore.concurrency import run_in_thread
from eventstore.errors import InputError, InvalidEvent, NotFound, printable
from eventstore.ids import derived_uuid
from projections import Reader

_T = TypeVar("_T")

# Reading messages

_MESSAGE_NAMES = {
    "message_id": "messageId",
    "context_id": "contextId",
    "task_id": "taskId",
    "reference_task_ids": "referenceTaskIds",
}
_PART_NAMES = {"media_type": "mediaType"}
_FILE_NAMES = {"mime_type": "mimeType"}
_ROLES = ("user", "agent", "ROLE_USER", "ROLE_AGENT")


def read_message(params: Any) -> Json:
    """Return the message of a call with A2A's names of members.

    Raises:
        InvalidEvent: It is not a valid message; names the member.
    """
    if not isinstance(params, dict):
        raise InvalidEvent("params", "is not a message: send an object with messageId, role and parts")
    message = renamed(params, _MESSAGE_NAMES)
    for name in ("messageId", "contextId", "taskId"):
        if not isinstance(message.get(name), str) and (name == "messageId" or message.get(name) is not None):
            raise InvalidEvent(f"params.{name}", "is missing, or not a string")
    if message.get("role") not in _ROLES:
        raise InvalidEvent("params.role", f"{message.get('role')!r:.80} is not one of {', '.join(_ROLES)}")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidEvent("params.parts", "is not a list of parts")
    message["parts"] = [_read_part(part) for part in parts]
    fault = invalid_member(message, version_of(message))
    if fault is not None:
        raise InvalidEvent(f"params.{fault.path}", fault.reason)
    return message


def _read_part(part: Json) -> Json:
    read = renamed(part, _PART_NAMES)
    if isinstance(read.get("file"), dict):
        read["file"] = renamed(read["file"], _FILE_NAMES)
    return read


# Listing messages


def requested_version(request: Request) -> Version | None:
    """Return the A2A version that the client requests; None if it requests none.

    Raises:
        InputError: The version is unknown.
    """
    header = request.headers.get("a2a-version", "").strip()
    if not header:
        return None
    if header == "0.3" or header.startswith("0.3."):
        return "0.3"
    if header == "1" or header.startswith("1."):
        return "1.0"
    raise InputError(f"A2A-Version: {header!r:.40} is unknown: send 0.3 or 1.0, or leave it out")


def version_of_list(conversations: Iterable[Summary]) -> Version:
    """Return the A2A version of a list of conversations: 1.0 if all of them are in it, otherwise 0.3."""
    versions = {each.a2a_version for each in conversations if each.a2a_version is not None and not each.is_deleted}
    return "1.0" if versions == {"1.0"} else "0.3"


def messages_of(view: ConversationView, version: Version) -> Iterator[Json]:
    """Yield the messages of a conversation in an A2A version."""
    return (as_message(message, version, id_of_unnamed(view.id, n)) for n, message in enumerate(view.messages))


def as_message(sent: Json, version: Version, default_id: str) -> Json:
    """Return a message in an A2A version; ``default_id`` becomes its id if it has none."""
    message = dict(sent)
    if not isinstance(message.get("parts"), list):
        message["parts"] = _parts_of_content(message.pop("content", None), version)
    if message.get("role") not in _ROLES:
        message["role"] = agent_role(version)
    if not isinstance(message.get("messageId"), str):
        message["messageId"] = default_id
    converted = message_in_version(message, version)
    return converted if invalid_member(converted, version) is None else repaired(converted, version, default_id)


def id_of_unnamed(conversation_id: UUID, number: int) -> str:
    """Return the id of a message that was sent without one, by its number in its conversation."""
    return str(derived_uuid("message without an id", str(conversation_id), number))


def _parts_of_content(content: Any, version: Version) -> list[Json]:
    if isinstance(content, str):
        return [text_part(content, version)] if content else []
    items = content if isinstance(content, list) else []
    texts = [item.get("text") for item in items if isinstance(item, dict)]
    return [text_part(text, version) for text in texts if isinstance(text, str)]


async def read_rewinds(reader: Reader, conversation_id: UUID, after: int) -> list[tuple[int, int]]:
    """Return the versions to which a conversation went back after a version, and those of the events that did so."""
    caller = reader.caller
    events = reader.store.read(
        conversation_id, after=after, types=["conversation.rewound"], tenant=caller.tenant, user=caller.user
    )
    return [
        (event.data.to_version, event.version) async for event in events if isinstance(event.data, ConversationRewound)
    ]


def is_hidden(version: int, rewinds: list[tuple[int, int]]) -> bool:
    """Return whether a conversation went back to a time before the event with a version."""
    return any(to_version < version < at_version for to_version, at_version in rewinds)


# Files

_FILE_PATH = "/message/file/"
_FILE_ID = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,8})-(0|[1-9][0-9]{0,5})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}", re.ASCII | re.IGNORECASE)
_INLINE = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "text/plain", "application/pdf")
"""Media types that a browser may display. Others, such as HTML or SVG, could run scripts with this site's origin."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as its sender gave it.

    Attributes:
        encoded: Its bytes in base64.
        media_type, name: Empty if the sender gave none.
    """

    encoded: str
    media_type: str
    name: str


def with_file_addresses(message: Json, conversation_id: UUID, version: int) -> Json:
    """Return a message with the addresses of its files in place of their bytes."""
    parts = message.get("parts")
    if not isinstance(parts, list) or not any(file_of(part) is not None for part in parts):
        return message
    prefix = f"{_FILE_PATH}{conversation_id.hex}-{version}-"
    return message | {"parts": [_with_address(part, f"{prefix}{number}") for number, part in enumerate(parts)]}


def _with_address(part: Any, address: str) -> Any:
    if file_of(part) is None:
        return part
    if "raw" in part:  # A2A 1.x
        return {name: value for name, value in part.items() if name != "raw"} | {"url": address}
    file = {name: value for name, value in part["file"].items() if name != "bytes"}
    return part | {"file": file | {"uri": address}}


def file_of(part: Any) -> File | None:
    """Return the file whose bytes a part holds, in either version; None for any other part."""
    if not isinstance(part, dict):
        return None
    file = part.get("file")
    if isinstance(file, dict) and isinstance(file.get("bytes"), str):
        return File(file["bytes"], _text(file.get("mimeType", file.get("mime_type"))), _text(file.get("name")))
    if isinstance(part.get("raw"), str):
        return File(part["raw"], _text(part.get("mediaType")), _text(part.get("filename")))
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


async def find_file(reader: Reader, file_id: str) -> File:
    """Return a file from the log, if the reader's caller may see its conversation.

    Raises:
        NotFound: There is none.
    """
    match = _FILE_ID.fullmatch(file_id)
    if match is not None and await visible_ids(reader, [UUID(match[1])]):
        version, number = int(match[2]), int(match[3])
        caller = reader.caller
        async for event in reader.store.read(
            UUID(match[1]),
            after=version - 1,
            until_version=version,
            limit=1,
            tenant=caller.tenant,
            user=caller.user,
        ):
            file = await _off_loop(event.size, _file_of_event, event, number)
            if file is not None and not is_hidden(version, await read_rewinds(reader, UUID(match[1]), version)):
                return file
    raise NotFound(f"there is no file {printable(file_id, 80)!r}: use an address from a listed message")


def _file_of_event(event: Event, number: int) -> File | None:
    parts = sent_message(event.data).get("parts") if isinstance(event.data, MessageAdded) else None
    return file_of(parts[number]) if isinstance(parts, list) and number < len(parts) else None


async def file_response(file: File, *, is_download: bool = False) -> Response:
    """Return the response with a file's bytes.

    Args:
        is_download: whether a browser stores it, even if it could show it.

    Raises:
        InputError: The bytes were not sent as base64.
    """
    media_type = file.media_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    disposition = "inline" if media_type.startswith(_INLINE) and not is_download else "attachment"
    name = f"; filename*=UTF-8''{quote(file.name.encode(errors='replace'), safe='')}" if file.name else ""
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": disposition + name,
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-site",
    }
    return Response(await _off_loop(len(file.encoded), _decoded, file.encoded), headers=headers)


async def _off_loop(size: int, work: Callable[..., _T], *arguments: object) -> _T:
    """Return what a function returns; if it works on much, it does so in a thread."""
    return await run_in_thread(work, *arguments) if size > LARGE_BYTES else work(*arguments)


def _decoded(text: str) -> bytes:
    standard = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("the bytes of this file were not sent as base64: they cannot be served") from None


# Summaries, so that lists of all conversations need not read all of them

_MAX_CACHED = 200_000
"""Conversations and tasks whose summaries are cached, of all tenants: some tens of megabytes."""


class SummaryCache:
    """A cache of summaries of conversations, each valid until the conversation has a later version.

    A summary does not depend on who may see the conversation; it is returned only to callers who may.
    """

    def __init__(self) -> None:
        self._summaries: LRUCache[tuple[str, UUID], Summary] = LRUCache(_MAX_CACHED, getsizeof=_entries)

    async def read(self, manager: Manager, versions: Mapping[UUID, int] | None = None) -> dict[UUID, Summary]:
        """Return the summaries of conversations at these versions or later; by default of all of a manager's, in order.

        Args:
            versions: Of conversations that the manager's user may see. They are few: what is read of them is cached.
        """
        is_scan = versions is None
        if versions is None:
            versions = await manager.versions()
        found: dict[UUID, Summary | None] = dict.fromkeys(versions)
        missing: dict[UUID, int | None] = {}
        for conversation_id, version in versions.items():
            cached = self._summaries.get((manager.tenant, conversation_id))
            if cached is not None and cached.version >= version:
                found[conversation_id] = cached
            else:
                missing[conversation_id] = version
        async for fold in manager.folds(missing, keep=not is_scan):
            found[fold.id] = self.add(manager.tenant, fold)
        return {id: each for id, each in found.items() if each is not None}

    def add(self, tenant: str, fold: ConversationFold) -> Summary:
        """Cache and return the summary of a conversation."""
        made = fold.summary
        if _entries(made) <= self._summaries.maxsize:
            self._summaries[tenant, fold.id] = made
        return made


def _entries(cached: Summary) -> int:
    return 1 + len(cached.tasks)
