"""Files inside messages: listed as addresses, under which they are served.

The id of a file says where it stands in the log: conversation, version, number of the part. So it means the same
after a restart and on every server, and nothing has to be remembered.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

from starlette.responses import Response

from agent_manager.http.looking import seen_of
from agent_manager.http.models.common import Json
from eventstore import MessageAdded, sent_message
from eventstore.errors import InputError, NotFound, printable
from projections import Reader

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
    if place is not None and await seen_of(reader, [UUID(place[1])]):
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
