"""From the free-text identifiers of clients to the UUIDs of the tables.

A text that is a UUID, and the first of its name, is used as it is. Any other becomes a UUIDv5 of the tenant, the
conversation, the text and its occurrence: the same input gives the same ids on every machine and in every run.
The text as given is stored beside the id (``given_id``) and given back.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid5

from eventstore.errors import InvalidId

_NAMESPACE = UUID("6c0a1f0e-5a5b-5d0c-9a43-0f6f1d0b7f2e")
"""Of this system's ids. Random, and for good: another would give other ids to the same input."""


def derived_uuid(*names: str | int) -> UUID:
    """The UUIDv5 (RFC 9562) of the names, which are set apart so that none can imitate another's end.

    Raises:
        InvalidId: a name is not Unicode text.
    """
    for given in names:
        if not isinstance(given, str | int):
            raise InvalidId(f"an id is made of texts, not of a {type(given).__name__}")
    name = "".join(f"{len(str(name))}:{name}" for name in names)
    try:
        return uuid5(_NAMESPACE, name)
    except UnicodeEncodeError as error:
        culprit = error.object[error.start]
        raise InvalidId(f"an id has the lone surrogate {culprit!r}: it is not Unicode text") from None


def is_canonical_uuid(text: str) -> bool:
    """Return whether the text is a UUID exactly as PostgreSQL and Python print one."""
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def conversation_uuid(tenant: str, text: str) -> UUID:
    """Return the id of the conversation that a client calls ``text``.

    Raises:
        InvalidId: it is not a Unicode text.
    """
    if not isinstance(text, str):
        raise InvalidId(f"a conversation's id is a {type(text).__name__}: give a text")
    return UUID(text) if is_canonical_uuid(text) else derived_uuid("conversation", tenant, text)


def own_given_id(tenant: str, conversation_id: UUID, given_id: str | None) -> str | None:
    """Return the id of a conversation as its client gave it, None if it is its UUID or the id of another conversation.

    Appending refuses the id of another conversation; if the log holds one all the same, every fold ignores it.
    """
    if given_id is None or given_id == str(conversation_id):
        return None
    return given_id if conversation_uuid(tenant, given_id) == conversation_id else None


def parse_uuid(value: UUID | str, what: str) -> UUID:
    """Reads a UUID.

    Raises:
        InvalidId: the text is none.
    """
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise InvalidId(
            f"{what}: {value!r} is not a UUID; for an id of your own making use eventstore.conversation_uuid()"
        ) from None


def assigned_uuid(tenant: str, conversation_id: UUID, kind: str, text: str, occurrence: int = 0) -> UUID:
    """The id of a thing in a conversation that is called ``text``: the first of that name, or a later one."""
    if occurrence == 0 and is_canonical_uuid(text):
        return UUID(text)
    return derived_uuid(kind, tenant, str(conversation_id), text, occurrence)


class IdAssigner:
    """Assigns ids to the things of one kind in one conversation, in the order in which they came."""

    def __init__(self, tenant: str, conversation_id: UUID, kind: str) -> None:
        self._scope = (tenant, conversation_id, kind)
        self._occurrences: Counter[str] = Counter()

    def assign(self, text: str) -> UUID:
        """Return the id of the next thing that is called ``text``.

        Raises:
            InvalidId: it is not a text.
        """
        if not isinstance(text, str):
            raise InvalidId(f"an id is made of texts, not of a {type(text).__name__}")
        occurrence = self._occurrences[text]
        self._occurrences[text] += 1
        return assigned_uuid(*self._scope, text, occurrence)
