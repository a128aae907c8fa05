"""Whether a message is one of A2A, in either shape, so that every client understands it.

Clients read a list as a whole or not at all: one message with a part that is none costs them all others. What no
version of A2A defines may be there, as in both versions; what they define must be of its kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from agent_manager.agents.wire import Json, Shape

_FILE_TEXTS = ("mimeType", "mime_type", "name")
_PART_TEXTS = ("text", "raw", "url", "filename", "mediaType")
_CONTENTS = ("text", "raw", "url", "data")


class Fault(NamedTuple):
    """What is wrong with a message; ``place`` is its path there, such as ``parts[0].text``."""

    place: str
    words: str


def fault_of(message: Json, shape: Shape) -> Fault | None:
    """What is wrong with a message of that shape beside its role and ids; None where nothing is."""
    if message.get("kind", "message") != "message":
        return Fault("kind", "is not 'message'")
    if not isinstance(message.get("metadata"), dict | None):
        return Fault("metadata", "is no object")
    for name in ("extensions", "referenceTaskIds"):
        items = message.get(name)
        if items is not None and not (isinstance(items, list) and all(isinstance(item, str) for item in items)):
            return Fault(name, "is no list of texts")
    parts = message.get("parts")
    if not isinstance(parts, list):
        return Fault("parts", "is no list of parts")
    faults = ((number, part_fault(part, shape)) for number, part in enumerate(parts))
    return next((Fault(f"parts[{n}]{fault.place}", fault.words) for n, fault in faults if fault is not None), None)


def part_fault(part: Any, shape: Shape) -> Fault | None:
    """What is wrong with a part of that shape; None where nothing is."""
    if not isinstance(part, dict):
        return Fault("", "is no object")
    if not isinstance(part.get("metadata"), dict | None):
        return Fault(".metadata", "is no object")
    return _old_fault(part) if shape == "0.3" else _new_fault(part)


def _old_fault(part: Json) -> Fault | None:
    # Where nothing says what kind of part it is, its content does.
    kind = part.get("kind", next((name for name in ("text", "file", "data") if name in part), None))
    match kind:
        case "text":
            return None if isinstance(part.get("text"), str) else Fault(".text", "is missing, or no text")
        case "data":
            return None if isinstance(part.get("data"), dict) else Fault(".data", "is missing, or no object")
        case "file":
            return _file_fault(part.get("file"))
    return Fault(".kind", "is not one of text, file, data")


def _file_fault(file: Any) -> Fault | None:
    if not isinstance(file, dict) or not (isinstance(file.get("bytes"), str) or isinstance(file.get("uri"), str)):
        return Fault(".file", "has neither bytes nor uri as a text")
    wrong = next((name for name in _FILE_TEXTS if not isinstance(file.get(name), str | None)), None)
    return None if wrong is None else Fault(f".file.{wrong}", "is no text")


def _new_fault(part: Json) -> Fault | None:
    wrong = next((name for name in _PART_TEXTS if not isinstance(part.get(name), str | None)), None)
    if wrong is not None:
        return Fault(f".{wrong}", "is no text")
    if sum(name in part and (name == "data" or part[name] is not None) for name in _CONTENTS) > 1:
        return Fault("", f"has more than one of {', '.join(_CONTENTS)}")
    return None
