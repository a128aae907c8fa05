"""Forks: conversations that continue another one from a version on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eventstore.database.pools import Queryable
from eventstore.database.queries import query
from eventstore.errors import ConversationIsDeleted, InputError, NotFound, conversation_not_found
from eventstore.event_types import ConversationForked
from eventstore.events import HIGHEST_VERSION

_FORK_SOURCE = query("eventstore", "fork_source")


async def forked_event(
    log: Queryable,
    tenant: str,
    source: UUID,
    version: int | None,
    *,
    name: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> ConversationForked:
    """Return the event that begins a fork of a conversation at a version, by default its latest.

    Args:
        log: as the caller may read it.

    Raises:
        NotFound: the source does not exist, is not visible to the caller, or has not reached the version.
        ConversationIsDeleted: the source is deleted.
        InputError: the version is not a number.
    """
    is_number = isinstance(version, int) and not isinstance(version, bool)
    if version is not None and not (is_number and 0 <= version < HIGHEST_VERSION):
        raise InputError(f"version: {version!r:.80} is not a version: give a number from 0")
    rows = await log.fetch(_FORK_SOURCE, {"tenant": tenant, "conversation_id": source})
    if not rows:
        raise conversation_not_found(source)
    [(reached, is_deleted)] = rows
    if is_deleted:
        raise ConversationIsDeleted(source)
    if version is not None and version > reached:
        raise NotFound(f"conversation {source} is at version {reached}: it has no version {version} to fork yet")
    return ConversationForked(
        source_conversation_id=source,
        source_version=reached if version is None else version,
        name=name,
        metadata=metadata,
    )
