"""Bodies of requests: JSON in UTF-8 that is unambiguous and that PostgreSQL can store.

JSON leaves open what a repeated member means. It is rejected: a store that keeps the only copy must not guess which
value was meant. Numbers that are not finite, NUL characters and lone surrogates, which PostgreSQL cannot store, are
rejected by their place in the body, whether they would be stored or not.
"""

from __future__ import annotations

import json
from collections import Counter
from math import isfinite
from typing import Any

from starlette.requests import Request

from agent_manager.a2a import Json
from agent_manager.server.problems import Rejected, UnsupportedMediaType
from eventstore.errors import InvalidEvent, printable
from eventstore.json_text import check_texts, to_json

BODY_METHODS = ("POST", "PATCH")
"""The methods of requests whose bodies are read."""


class JsonRequest(Request):
    """A request whose body, if it has one, is JSON."""

    async def json(self) -> Any:
        """Return the value of the body; None if it is empty.

        Raises:
            Rejected: It is not JSON, or repeats a member of an object.
            UnsupportedMediaType: It is not sent as JSON.
            InvalidEvent: It contains a text or a number that cannot be stored; names its place.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            if body:
                self._check_content_type()
            self._json = _parse(body)
        return self._json

    def _check_content_type(self) -> None:
        content_type = self.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type != "application/json" and not (
            media_type.startswith("application/") and media_type.endswith("+json")
        ):
            came = f"is {printable(content_type, 80)!r}" if content_type else "is missing"
            raise UnsupportedMediaType(f"the Content-Type of the body {came}: send JSON, as application/json")
        encoding = self.headers.get("content-encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise UnsupportedMediaType(
                f"the Content-Encoding of the body is {printable(encoding, 80)!r}: send it without an encoding"
            )


def _parse(body: bytes) -> Any:
    if not body.strip():
        return None
    is_finite = True

    def number(text: str) -> float:
        nonlocal is_finite
        is_finite &= isfinite(value := float(text))
        return value

    try:
        text = body.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=number, parse_float=number)
        _check(value, is_finite, has_escapes=any(escape in body for escape in _SUSPICIOUS))
        return value
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except json.JSONDecodeError as error:
        reason = str(error)
    except ValueError:  # Python's limit on the digits that it converts
        reason = "an integer has too many digits, send it as a text"
    raise Rejected(f"the body is not valid JSON: {reason}: send JSON in UTF-8", "not_json")


_SUSPICIOUS = (rb"\u0000", rb"\ud", rb"\uD")
"""The beginnings of the escapes of NUL characters and surrogates."""


def _check(value: Any, is_finite: bool, *, has_escapes: bool) -> None:
    try:
        if not is_finite:
            to_json(value, "body")
        if has_escapes:
            check_texts(value, "body")
    except InvalidEvent as error:
        raise InvalidEvent(error.path.replace("body.", "", 1), error.reason) from None


def _object(members: list[tuple[str, Any]]) -> Json:
    found = dict(members)
    if len(found) == len(members):
        return found
    [(repeated, _)] = Counter(name for name, _ in members).most_common(1)
    raise Rejected(
        f"the body has an object with two members {printable(repeated, 80)!r}: send each member once",
        "repeated_member",
        status=422,
    )
