"""UUIDs for the tables, derived from the free-text identifiers of clients.

A text that is a UUID, at its first occurrence, is used unchanged. Any other becomes a UUIDv5 of the tenant, the
conversation, the text and its occurrence: the same input gives the same ids on every machine and in every run. The text
is stored beside the id (``given_id``) and returned to clients.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid5

from eventstore.errors import InvalidId

_NAMESPACE = UUID("6c0a1f0e-5a5b-5d0c-9a43-0f6f1d0b7f2e")
"""The UUID namespace of these ids. It must never change: another one would give other ids to the same input."""


def derived_uuid(*names: str | int) -> UUID:
    """Return the UUIDv5 (RFC 9562) of some names. Each is prefixed by its length, so that no two lists are equal.

    Raises:
        InvalidId: a name is not Unicode text.
    """
    for name in names:
        if not isinstance(name, str | int):
            raise InvalidId(f"an id is made of texts, not of a {type(name).__name__}")
    try:
        return uuid5(_NAMESPACE, "".join(f"{len(str(name))}:{name}" for name in names))
    except UnicodeEncodeError as error:
        surrogate = error.object[error.start]
        raise InvalidId(f"an id has the lone surrogate {surrogate!r}: it is not Unicode text") from None


def is_canonical_uuid(text: str) -> bool:
    """Return whether the text is a UUID exactly as PostgreSQL and Python print one."""
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def conversation_uuid(tenant: str, text: str) -> UUID:
    """Return the id of the conversation that has the id ``text`` at its client.

    Raises:
        InvalidId: it is not a Unicode text.
    """
    if not isinstance(text, str):
        raise InvalidId(f"a conversation's id is a {type(text).__name__}: give a text")
    return UUID(text) if is_canonical_uuid(text) else derived_uuid("conversation", tenant, text)


def own_given_id(tenant: str, conversation_id: UUID, given_id: str | None) -> str | None:
    """Return the client's id of a conversation; None if it is the UUID or belongs to another conversation.

    An append with the id of another conversation is refused; if the log contains one, every projection ignores it.
    """
    if given_id is None or given_id == str(conversation_id):
        return None
    return given_id if conversation_uuid(tenant, given_id) == conversation_id else None


def parse_uuid(value: UUID | str, name: str) -> UUID:
    """Return a UUID from its text.

    Args:
        name: name of the value in the error.

    Raises:
        InvalidId: the text is not a UUID.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidId(
            f"{name}: {value!r} is not a UUID; for any other text use eventstore.conversation_uuid()"
        ) from None


def assigned_uuid(tenant: str, conversation_id: UUID, kind: str, text: str, occurrence: int = 0) -> UUID:
    """Return the id of an item of a conversation that has the id ``text`` at its client, by its occurrence from 0."""
    if occurrence == 0 and is_canonical_uuid(text):
        return UUID(text)
    return derived_uuid(kind, tenant, str(conversation_id), text, occurrence)


class IdAssigner:
    """Assigns ids to the items of one kind in one conversation, in their order."""

    def __init__(self, tenant: str, conversation_id: UUID, kind: str) -> None:
        self._scope = (tenant, conversation_id, kind)
        self._occurrences: Counter[str] = Counter()

    def assign(self, text: str) -> UUID:
        """Return the id of the next item that has the id ``text`` at its client.

        Raises:
            InvalidId: it is not a text.
        """
        if not isinstance(text, str):
            raise InvalidId(f"an id is made of texts, not of a {type(text).__name__}")
        occurrence = self._occurrences[text]
        self._occurrences[text] += 1
        return assigned_uuid(*self._scope, text, occurrence)
