"""What tenants, users and keys may be called."""

from __future__ import annotations

from eventstore.caller import Caller
from eventstore.errors import InvalidEvent
from eventstore.jsontext import check_text

KEY_ACTOR = "key:"
"""Begins the actor of what is caused by a key that belongs to no user."""


def checked_user(user: str) -> str:
    """The user's id.

    Raises:
        InvalidEvent: it is empty, too long, not storable, or could be taken for a key's.
    """
    Caller("-", user)
    if user.startswith(KEY_ACTOR):
        raise InvalidEvent("user", f"{user!r} begins like the actor of a key: choose another id")
    return user


def checked_name(name: str, longest: int = 255) -> str:
    """The name of something, which may be empty.

    Raises:
        InvalidEvent: it is too long or not storable.
    """
    check_text(name, "name", longest=longest)
    return name


def checked_key_name(name: str) -> str:
    """The name of a key.

    Raises:
        InvalidEvent: it is empty, too long or not storable.
    """
    if not name:
        raise InvalidEvent("name", "a key needs one: say what it is for")
    return checked_name(name, longest=100)
