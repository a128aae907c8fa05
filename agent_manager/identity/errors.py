"""What can go wrong with a caller's identity."""

from __future__ import annotations

from eventstore.errors import EventStoreError, ServerError


class Unauthorized(EventStoreError):
    """The token is not valid. It is one text whatever the reason, so that it teaches nothing to who tries tokens."""

    def __init__(self) -> None:
        super().__init__("the token is not valid: ask whoever gave it to you for another one")


class KeysUnavailable(ServerError):
    """The keys with which JWT are checked cannot be read now, so that no JWT can be told from a forged one."""
