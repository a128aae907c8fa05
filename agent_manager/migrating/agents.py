"""The registered agents: in the log they are events of a reserved conversation."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent_manager.manager.log import Log
from agent_manager.manager.registry import AGENTS, url_of
from agent_manager.migrating.planning import ACTOR
from agent_manager.migrating.stored import MIGRATED, is_migrated, read_events
from agent_manager.migrating.wire import Json, canonical_card, text_member
from eventstore import (
    NO_STREAM,
    AgentRegistered,
    AgentUnregistered,
    Metadata,
    NewEvent,
    conversation_uuid,
)
from eventstore.jsontext import equal


def agent_url(card: Json) -> str:
    """Under what an agent is registered: the URL in its card, or its name where that has none."""
    return url_of(card) or text_member(card, "name")


@dataclass(slots=True)
class StoredAgents:
    """The agents of the log.

    Attributes:
        cards: of those that are registered, by their URL.
        changed: URLs that others than a migration have registered or unregistered last.
        version: of the reserved conversation.
    """

    cards: dict[str, Json] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    version: int = 0


async def stored_agents(log: Log) -> StoredAgents:
    """The agents as the log has them now."""
    stored = StoredAgents()
    async for event in read_events(log, conversation_uuid(log.tenant, AGENTS)):
        stored.version = event.version
        data = event.data
        if isinstance(data, AgentRegistered):
            stored.cards[data.url] = data.card
        elif isinstance(data, AgentUnregistered):
            stored.cards.pop(data.url, None)
        else:
            continue
        (stored.changed.discard if is_migrated(event) else stored.changed.add)(data.url)
    return stored


def by_url(cards: list[Json]) -> dict[str, Json]:
    """Cards by the URL of their agent: an application may list one twice that was registered twice."""
    return {agent_url(card): card for card in cards}


def missing_agents(cards: list[Json], stored: StoredAgents) -> dict[str, Json]:
    """The agents that the log does not have as they are; those that its own users have changed since count as there."""
    return {
        url: card
        for url, card in by_url(cards).items()
        if url not in stored.changed
        and not (url in stored.cards and equal(canonical_card(stored.cards[url]), canonical_card(card)))
    }


async def take_over_agents(log: Log, cards: list[Json]) -> int:
    """Registers the agents that are missing; how many events that took."""
    stored = await stored_agents(log)
    events = [
        NewEvent(AgentRegistered(url=url, card=card), actor=ACTOR, metadata=Metadata(**{MIGRATED: True}))
        for url, card in missing_agents(cards, stored).items()
    ]
    if events:
        expected = stored.version or NO_STREAM
        await log.append(conversation_uuid(log.tenant, AGENTS), events, expected)
    return len(events)
