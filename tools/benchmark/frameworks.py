"""Adapters for agent frameworks against the frameworks' own stores: the same calls on the same messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from tools.benchmark.measurement import Benchmark, Figure, Target, Throughput, drive
from tools.benchmark.messages import Message, conversation
from tools.benchmark.peers import PEERS, appends_of, opened_peer

ITEMS = 500
_CALLERS = {1: Target(1), 16: Target(5)}


async def openai_sessions(bench: Benchmark) -> list[Figure]:
    """Compare EventStoreSession with the OpenAI Agents SDK's SQLAlchemySession: adding items, and reading 500."""
    spec = next(peer for peer in PEERS if peer.name == "openai-agents")
    spec.make()  # raises PeerMissing
    from agent_manager.adapters.openai_agents import EventStoreSession

    sessions: dict[UUID, EventStoreSession] = {}

    async def begin(messages: Sequence[Message]) -> None:
        for message in messages:
            key = message.conversation_id
            sessions.setdefault(key, EventStoreSession(str(key), bench.store))

    def prepare(message: Message) -> tuple[EventStoreSession, list[Any]]:
        return sessions[message.conversation_id], [{"role": message.role, "content": message.text}]

    async def add(_: int, given: tuple[EventStoreSession, list[Any]]) -> None:
        session, items = given
        await session.add_items(items)

    stored = bench.events_of(bench.store, "event_type <> 'conversation.created'")
    figures = []
    for callers, target in _CALLERS.items():
        async with opened_peer(bench, spec, callers) as peer:
            own = bench.rate(
                Throughput(callers, prepare, lambda plan, seconds: drive(plan, add, seconds), stored, begin)
            )
            theirs = appends_of(bench, spec, peer, callers)
            ours, other = await bench.in_turn(f"{callers} sessions", [own, theirs])
        what = f"add_items of one item by {callers} callers / SQLAlchemySession's"
        figures.append(Figure("openai-sessions", what, "items/s", ours, other, target))
    async with opened_peer(bench, spec, 1) as peer:
        messages = conversation("openai-sessions", ITEMS)
        await begin(messages)
        await peer.begin(messages)
        for message in messages:
            await add(0, prepare(message))
            await peer.append(peer.prepare(message))
        session_id = messages[0].conversation_id

        async def read() -> int:
            return len(await sessions[session_id].get_items())

        async def read_peer() -> int:
            return len(await peer.read_session(session_id))

        sides = [bench.seconds_each(act, ITEMS) for act in (read, read_peer)]
        ours, other = await bench.in_turn(f"{ITEMS} items", sides)
    what = f"get_items of {ITEMS} items / SQLAlchemySession's"
    return [*figures, Figure("openai-sessions", what, "s", ours, other, Target(1, at_least=False))]
