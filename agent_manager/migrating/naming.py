"""Names of conversations that are longer than the tables take: kept whole in the metadata, and given back."""

from __future__ import annotations

from agent_manager.migrating.source import SourceConversation
from agent_manager.migrating.wire import Json

LONGEST_NAME = 255
FULL_NAME = "name"
"""Where in a conversation's metadata a name stands that is longer than the tables take."""


def fitted(source: SourceConversation) -> tuple[str, Json | None]:
    """Name and metadata of a conversation as the store can have them."""
    if len(source.name) <= LONGEST_NAME:
        return source.name, source.metadata
    return source.name[:LONGEST_NAME], (source.metadata or {}) | {FULL_NAME: source.name}


def full_name(name: str, metadata: Json | None) -> tuple[str, Json | None]:
    """The way back: name and metadata as they were."""
    whole = (metadata or {}).get(FULL_NAME)
    if not isinstance(whole, str) or len(whole) <= LONGEST_NAME or whole[:LONGEST_NAME] != name:
        return name, metadata
    return whole, {key: value for key, value in (metadata or {}).items() if key != FULL_NAME} or None
