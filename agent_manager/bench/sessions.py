"""A conversation of 500 messages read as a whole, against ``google-adk``'s ``get_session`` of a session like it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agent_manager.bench.against_peers import opened_peer
from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.messages import conversation
from agent_manager.bench.peers import PEERS, PeerMissing
from agent_manager.bench.table_reading import MESSAGES, filled, seconds_each
from agent_manager.bench.work import Bench, opened
from projections import ConversationCache, Reader

_TARGET = Target(0.2, at_least=False)
_PEER = next(known for known in PEERS if known.name == "google-adk")


async def sessions(bench: Bench) -> list[Figure]:
    """The messages alone, from the table; the whole conversation with its tasks, from the cache."""
    settings = bench.place.migrated("sessions")
    try:
        async with opened_peer(bench, _PEER, 1) as peer, opened(settings) as store:
            conversation_id = await filled(store, "sessions")
            reader = Reader(store)
            cache = ConversationCache(reader)

            async def ours() -> int:
                return len(await reader.messages(conversation_id))

            async def cached() -> int:
                return len((await cache.conversation(conversation_id)).messages)

            acts = [ours, cached, await _theirs(peer)]
            sides = [seconds_each(bench, act, MESSAGES) for act in acts]
            read, from_cache, other = await bench.in_turn("sessions", sides)
    except PeerMissing as missing:
        bench.skip(f"sessions: {missing}")
        return []
    finally:
        bench.place.drop_schema(settings.db_schema)
    theirs = f"{_PEER.name}'s get_session of {MESSAGES} events"
    return [
        Figure("sessions", f"a conversation of {MESSAGES} messages / {theirs}", "s", read, other, _TARGET),
        Figure("sessions", f"the same from the cache / {theirs}", "s", from_cache, other),
    ]


async def _theirs(peer: Any) -> Callable[[], Awaitable[int]]:
    """Fills a session with the same messages, and reads it."""
    messages = conversation("sessions", MESSAGES)
    await peer.begin(messages)
    for message in messages:
        await peer.append(peer.prepared(message))

    async def act() -> int:
        return len(await peer.read_session(messages[0].conversation_id))

    return act
