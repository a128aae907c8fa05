"""What is refused, whatever was asked: too much, too fast, too slow, or by somebody who may not.

::

    Refused
    ├── NoToken        401  no bearer token, where one is needed
    ├── BadToken       401  a token that is not valid
    ├── NotAllowed     403  a token that does not allow this
    ├── TooSlow        408  a body that does not come
    ├── TooLarge       413  a body that is larger than the limit
    ├── TooMany        429  more than one key may have
    └── Busy           503  more than the server takes
"""

from __future__ import annotations

from typing import ClassVar

from eventstore.errors import printable


class Refused(Exception):
    """A request that is refused. Its text says why, and what to do.

    Attributes:
        status: of the answer.
        title: a word that programs may tell it by.
        reason: the same for the counters.
        headers: of the answer.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    reason: str = ""

    def __init__(self, said: str, reason: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(said)
        self.reason = reason or self.reason
        self.headers = headers or {}


class NoToken(Refused):
    """There is no bearer token."""

    status, title, reason = 401, "Unauthorized", "no token"

    def __init__(self) -> None:
        super().__init__(
            "a token is needed: send 'Authorization: Bearer …'; eventstore keys add makes one",
            headers={"WWW-Authenticate": 'Bearer realm="eventstore"'},
        )


class BadToken(Refused):
    """The token is not valid. Nothing tells why."""

    status, title, reason = 401, "Unauthorized", "bad token"

    def __init__(self, said: str) -> None:
        super().__init__(said, headers={"WWW-Authenticate": 'Bearer realm="eventstore", error="invalid_token"'})


class NotAllowed(Refused):
    """The token does not allow this."""

    status, title, reason = 403, "Forbidden", "scope"

    def __init__(self, scope: str) -> None:
        super().__init__(
            f"this token does not allow it: the scope {scope} is needed",
            headers={"WWW-Authenticate": f'Bearer realm="eventstore", error="insufficient_scope", scope="{scope}"'},
        )


class TooSlow(Refused):
    """The body does not come."""

    status, title, reason = 408, "Request Timeout", "slow body"

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the body did not come within {seconds:g} seconds: send less at a time, or raise EVENTSTORE_BODY_SECONDS",
            headers={"Connection": "close"},
        )


class TooLarge(Refused):
    """The body is larger than the limit."""

    status, title, reason = 413, "Content Too Large", "large body"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the body takes more than {limit:,} bytes: send less at a time, "
            "or raise EVENTSTORE_MAX_CONTENT_BYTES, from which the limit comes"
        )


class TooMany(Refused):
    """More than one key may have."""

    status, title = 429, "Too Many Requests"

    def __init__(self, said: str, reason: str, seconds: int = 1) -> None:
        super().__init__(said, reason, {"Retry-After": str(seconds)})


class Busy(Refused):
    """More than the server takes."""

    status, title = 503, "Service Unavailable"

    def __init__(self, said: str, reason: str) -> None:
        super().__init__(printable(said), reason, {"Retry-After": "1"})
