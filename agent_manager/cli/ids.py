"""Ids on the command line: a person types an id whole, or as much of its beginning as no other id has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from agent_manager.server.conversation_lookup import resolve
from eventstore import Event
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound, conversation_not_found, printable
from projections import Message, Reader, Task

if TYPE_CHECKING:  # agent_manager.auth imports the HTTP client, which takes a tenth of a second
    from agent_manager.auth import Directory
    from agent_manager.conversation_fold import ConversationFold

_BEGINNING = query("agent_manager", "conversations_beginning")
_GIVEN_IDS = query("agent_manager", "given_ids")
_NAMED = 5
"""Ids that the error for an ambiguous beginning names."""


async def find_conversation(reader: Reader, text: str) -> UUID:
    """Return the id of the conversation that has an id or a given id, or the only one whose ids begin so.

    The whole id is looked up in the log, a beginning in the read tables.

    Raises:
        NotFound: the reader's caller can see none.
        InputError: there are several.
    """
    if (resolved := await resolve(reader, text)) is not None:
        return resolved.id
    first, last = _uuid_range(text)
    parameters = {
        "tenant": reader.tenant,
        "uuid": first,
        "uuid_end": last,
        "text": text,
        "text_end": f"{text}\U0010ffff",
        "limit": _NAMED + 1,
    }
    rows = await reader.store.tables(reader.caller).fetch(_BEGINNING, parameters) if text else []
    _check_one(text, [given if (given or "").startswith(text) else str(uuid) for uuid, given in rows])
    if not rows:
        raise NotFound(
            f"{conversation_not_found(text)}; a beginning is looked up in the read tables: type a new id whole, "
            "or run eventstore up"
        )
    found: UUID = rows[0][0]
    return found


def _uuid_range(text: str) -> tuple[UUID | None, UUID | None]:
    """Return the first and the last UUID that begin with a text, with hyphens or without; None if none does."""
    lower = text.lower()
    digits = lower.replace("-", "")
    if not re.fullmatch("[0-9a-f]{1,32}", digits):
        return None, None
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    return (first, last) if lower in (digits, str(first)[: len(lower)]) else (None, None)


async def find_key(directory: Directory, tenant: str, text: str) -> str:
    """Return the id of the only key of a tenant whose id begins with a text; the text if there is none.

    Raises:
        InputError: there are several.
    """
    found = await directory.key_ids(tenant, text, _NAMED + 1) if text else []
    _check_one(text, found)
    return found[0] if found else text


def find_task(fold: ConversationFold, text: str) -> str:
    """Return the given id of the task of a conversation that has an id or a given id, or the only one that begins so.

    Returns the text if there is none.

    Raises:
        InputError: there are several.
    """
    ids = {task.given_id: (task.given_id, str(task.id)) for task in fold.tasks.values()}
    whole = [given_id for given_id, both in ids.items() if text in both]
    found = whole or [
        given_id for given_id, both in ids.items() if text and any(each.startswith(text) for each in both)
    ]
    _check_one(text, found)
    return found[0] if found else text


def _check_one(text: str, found: Sequence[str]) -> None:
    if len(found) > 1:
        more = " and others" if len(found) > _NAMED else ""
        names = ", ".join(printable(each) for each in found[:_NAMED])
        raise InputError(f"{printable(text)}: several ids begin so: {names}{more}: type more of the one that you mean")


async def given_ids(reader: Reader, conversations: Iterable[UUID]) -> dict[UUID, str]:
    """Return the ids that clients gave to conversations, of those that have one."""
    parameters = {"tenant": reader.tenant, "ids": list(set(conversations))}
    return dict(await reader.store.tables(reader.caller).fetch(_GIVEN_IDS, parameters))


async def names_of_conversations(reader: Reader, rows: Iterable[Message | Task | Event]) -> dict[UUID, str]:
    """Return the ids that clients gave to the conversations of rows."""
    return await given_ids(reader, (row.conversation_id for row in rows))
