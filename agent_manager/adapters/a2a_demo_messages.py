"""Messages and files as the A2A demo's client sends and lists them.

Only the names of members that A2A defines are changed, and only where it defines them; data, metadata and
whatever else a message holds stays as it was sent.

Clients read all of a list or nothing: one message that they do not understand costs them the others. So a client gets
everything in the shape that it names (A2A-Version), else a conversation in that of its first message, which is its
user's, also what an agent of the other version has said; and a list of conversations of both shapes in 0.3, which a
client without a version speaks. And conversations that were imported, or written through
``/v1``, hold messages of other kinds, with ``content`` and further roles.

The id of a file says where it stands in the log: conversation, version, number of the part. So it means the same
after a restart and on every server, and nothing has to be remembered.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from cachetools import LRUCache
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.a2a import Version, agent_role, invalid_member, message_in_version, text_part, version_of
from agent_manager.conversation import ConversationFold, ConversationView
from agent_manager.manager import Manager, Summary, summary
from agent_manager.server.lookups import visible_ids
from agent_manager.server.schemas.common import Json
from agent_manager.wire_classes import repaired
from eventstore import MessageAdded, sent_message
from eventstore.errors import InputError, InvalidEvent, NotFound, printable
from eventstore.ids import derived_uuid
from projections import Reader

# Messages as the demo's client sends them: it writes Python's names of the members, and A2A has others

_MESSAGE = {
    "message_id": "messageId",
    "context_id": "contextId",
    "task_id": "taskId",
    "reference_task_ids": "referenceTaskIds",
}
_PART = {"media_type": "mediaType"}
_FILE = {"mime_type": "mimeType"}
_ROLES = ("user", "agent", "ROLE_USER", "ROLE_AGENT")


def read_message(given: Any) -> Json:
    """The message with the names that A2A has.

    Raises:
        InvalidEvent: it is none; says what is wrong with it.
    """
    if not isinstance(given, dict):
        raise InvalidEvent("params", "is no message: send an object with messageId, role and parts")
    message = _renamed(given, _MESSAGE)
    for name in ("messageId", "contextId", "taskId"):
        if not isinstance(message.get(name), str) and (name == "messageId" or message.get(name) is not None):
            raise InvalidEvent(f"params.{name}", "is missing, or no text")
    if message.get("role") not in _ROLES:
        raise InvalidEvent("params.role", f"{message.get('role')!r:.80} is not one of {', '.join(_ROLES)}")
    parts = message.get("parts")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise InvalidEvent("params.parts", "is no list of parts")
    message["parts"] = [_part(part) for part in parts]
    fault = invalid_member(message, version_of(message))
    if fault is not None:
        raise InvalidEvent(f"params.{fault.path}", fault.reason)
    return message


def _part(given: Json) -> Json:
    part = _renamed(given, _PART)
    if isinstance(part.get("file"), dict):
        part["file"] = _renamed(part["file"], _FILE)
    return part


def _renamed(given: Json, names: dict[str, str]) -> Json:
    """The same members in the same order; where both names are there, each stays."""
    return {names[name] if name in names and names[name] not in given else name: value for name, value in given.items()}


# In which shape of A2A the demo's endpoints speak, and messages that were sent in no shape of A2A in one


def requested_version(request: Request) -> Version | None:
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


def as_message(sent: Json, shape: Version, unnamed: str) -> Json:
    """A message in that shape; ``unnamed`` is its id where it has none."""
    message = dict(sent)
    if not isinstance(message.get("parts"), list):
        message["parts"] = _parts(message.pop("content", None), shape)
    if message.get("role") not in _ROLES:
        message["role"] = agent_role(shape)
    if not isinstance(message.get("messageId"), str):
        message["messageId"] = unnamed
    told = message_in_version(message, shape)
    return told if invalid_member(told, shape) is None else repaired(told, shape, unnamed)


def unnamed(conversation_id: UUID, number: int) -> str:
    """The id of a message without one, by its number in its conversation."""
    return str(derived_uuid("message without an id", str(conversation_id), number))


def shape_of_list(conversations: Iterable[Summary]) -> Version:
    """The shape of a list of many conversations, for clients that read one: 1.x where all are in it, else 0.3."""
    own = {one.shape for one in conversations if one.shape is not None and not one.is_deleted}
    return "1.0" if own == {"1.0"} else "0.3"


def messages_of(view: ConversationView, shape: Version) -> Iterator[Json]:
    """The messages of a conversation in that shape."""
    return (as_message(message, shape, unnamed(view.id, n)) for n, message in enumerate(view.messages))


def _parts(content: Any, shape: Version) -> list[Json]:
    if isinstance(content, str):
        return [text_part(content, shape)] if content else []
    items = content if isinstance(content, list) else []
    texts = [item.get("text") for item in items if isinstance(item, dict)]
    return [text_part(text, shape) for text in texts if isinstance(text, str)]


# Files inside messages: listed as addresses, under which they are served

PATH = "/message/file/"

_ID = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,8})-(0|[1-9][0-9]{0,5})", re.ASCII)
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}", re.ASCII | re.IGNORECASE)
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "audio/", "video/", "text/plain", "application/pdf")
"""What a browser may show in place. Anything else, such as HTML or SVG, could run scripts as this site's own."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as its sender gave it.

    Attributes:
        encoded: its bytes in base64.
        media_type: as given; empty where nobody said.
        name: as given; empty where it has none.
    """

    encoded: str
    media_type: str
    name: str


def listed(message: Json, conversation_id: UUID, version: int) -> Json:
    """The message with the addresses of its files in place of their bytes."""
    parts = message.get("parts")
    if not isinstance(parts, list) or not any(file_of(part) is not None for part in parts):
        return message
    place = f"{PATH}{conversation_id.hex}-{version}-"
    return message | {"parts": [_listed(part, f"{place}{number}") for number, part in enumerate(parts)]}


def _listed(part: Any, address: str) -> Any:
    if file_of(part) is None:
        return part
    if "raw" in part:  # A2A 1.x
        return {name: value for name, value in part.items() if name != "raw"} | {"url": address}
    file = {name: value for name, value in part["file"].items() if name != "bytes"}
    return part | {"file": file | {"uri": address}}


def file_of(part: Any) -> File | None:
    """The file that a part holds the bytes of, in either shape; None for every other part."""
    if not isinstance(part, dict):
        return None
    file = part.get("file")
    if isinstance(file, dict) and isinstance(file.get("bytes"), str):
        return File(file["bytes"], _text(file.get("mimeType", file.get("mime_type"))), _text(file.get("name")))
    if isinstance(part.get("raw"), str):
        return File(part["raw"], _text(part.get("mediaType")), _text(part.get("filename")))
    return None


async def find(reader: Reader, file_id: str) -> File:
    """The file of an id, from the log, as far as the reader's caller sees it.

    Raises:
        NotFound: there is none.
    """
    place = _ID.fullmatch(file_id)
    if place is not None and await visible_ids(reader, [UUID(place[1])]):
        version, number = int(place[2]), int(place[3])
        caller = reader.caller
        async for event in reader.store.read(
            UUID(place[1]),
            after=version - 1,
            until_version=version,
            limit=1,
            tenant=caller.tenant,
            user=caller.user,
        ):
            parts = sent_message(event.data).get("parts") if isinstance(event.data, MessageAdded) else None
            file = file_of(parts[number]) if isinstance(parts, list) and number < len(parts) else None
            if file is not None:
                return file
    raise NotFound(f"there is no file {printable(file_id, 80)!r}: its address stands in the message that holds it")


def answer(file: File) -> Response:
    """The file's bytes.

    Raises:
        InputError: what was sent as its bytes is no base64.
    """
    media_type = file.media_type.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = "application/octet-stream"
    way = "inline" if media_type.startswith(_SHOWN) else "attachment"
    name = f"; filename*=UTF-8''{quote(file.name.encode(errors='replace'), safe='')}" if file.name else ""
    headers = {
        "Content-Type": media_type,
        "Content-Disposition": way + name,
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cross-Origin-Resource-Policy": "same-site",
    }
    return Response(_decoded(file.encoded), headers=headers)


def _decoded(text: str) -> bytes:
    plain = "".join(text.split()).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(
            "the bytes of this file were sent in something else than base64: they cannot be served"
        ) from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# What is known of each conversation, so that lists of all of them need not read all of them

_KEPT = 200_000
"""Conversations and tasks whose summaries are kept, of all tenants: some tens of megabytes."""


class SummaryCache:
    """Summaries of conversations, each kept until there is a later version.

    A summary is of the conversation, not of who sees it: it is given only to those who see the conversation.
    """

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[str, UUID], Summary] = LRUCache(_KEPT, getsizeof=lambda one: 1 + len(one.tasks))

    async def read(self, manager: Manager) -> dict[UUID, Summary]:
        """Return the summaries of a manager's conversations, in the order in which they began."""
        versions = await manager.versions()
        found: dict[UUID, Summary | None] = dict.fromkeys(versions)
        missing: dict[UUID, int | None] = {}
        for conversation_id, version in versions.items():
            kept = self._kept.get((manager.tenant, conversation_id))
            if kept is not None and kept.version >= version:
                found[conversation_id] = kept
            else:
                missing[conversation_id] = version
        async for fold in manager.folds(missing):
            found[fold.id] = self.add(manager.tenant, fold)
        return {each: one for each, one in found.items() if one is not None}

    def add(self, tenant: str, fold: ConversationFold) -> Summary:
        """Return the summary of a conversation that was read, and keep it."""
        made = summary(fold)
        if 1 + len(made.tasks) <= self._kept.maxsize:
            self._kept[tenant, fold.id] = made
        return made
