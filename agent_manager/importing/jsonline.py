"""A line of a file as a JSON object, read strictly: what cannot be stored as it stands is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from eventstore.errors import InputError


class MalformedLine(InputError):
    """A line of a chat log does not have the shape of a conversation."""


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        MalformedLine: there is something else.
    """
    try:
        sent = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise MalformedLine(f"is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise MalformedLine(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
    except ValueError as error:
        raise MalformedLine(f"is not JSON: {error}") from None
    if not isinstance(sent, dict):
        raise MalformedLine(f"is {described(sent)}, expected an object with id, title and messages")
    return sent


def id_text(value: Any) -> str | None:
    """An identifier as a text: texts and whole numbers are identifiers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def described(value: Any) -> str:
    """What kind of JSON value it is, for errors."""
    return _KINDS.get(type(value), f"a {type(value).__name__}")


def expected(sent: dict[str, Any], member: str, what: str) -> str:
    """What is wrong with a member that is missing or of another kind."""
    found = f"is {described(sent[member])}" if member in sent else "is missing"
    return f"{member}: {found}, expected {what}"


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number: send null or a text")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
