"""Files that an application's server took out of the messages it listed, and put back into them here.

The demo's server replaces a file part by one that names ``/message/file/ID``, in its manager's own messages too, and
keeps the part itself apart. What it serves there is the file's bytes for an image, and their base64 for anything else.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from agent_manager.migrating.wire import Json
from eventstore.jsontext import equal

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
