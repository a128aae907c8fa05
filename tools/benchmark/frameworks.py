"""Adapters of agent frameworks against the frameworks' own database stores: the same work on the same server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from eventstore import EventStore
from eventstore.errors import ServerError
from projections import catch_up
from tools.benchmark.measurement import Benchmark, Figure, Target, Throughput, drive
from tools.benchmark.messages import Message, conversation, conversations
from tools.benchmark.peers import PEERS, PeerSpec, appends_of, opened_peer

EVENTS = 500
"""The length of the session that is read."""
_EVENTS_OF_SESSION = 100
"""Events of the long log for each session that is listed."""
_CALLERS = {1: Target(1), 16: Target(5)}
_PROVED = 50
"""Tasks that each side reads back after it was measured."""


def _spec(name: str) -> PeerSpec:
    return next(peer for peer in PEERS if peer.name == name)


async def a2a_sdk(bench: Benchmark) -> list[Figure]:
    """Compare saves of A2A tasks, each with a further message, with those of a2a-sdk's own store."""
    spec = _spec("a2a-sdk")
    figures = []
    for tasks, target in _CALLERS.items():
        async with opened_peer(bench, spec, tasks) as theirs:
            from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

            ours: Any = spec.make()
            ours.use(EventStoreTaskStore(bench.store))
            stored = bench.events_of(bench.store, "event_type = 'message.added'")
            sides = [
                bench.rate(Throughput(tasks, ours.prepare, ours.drive, stored, ours.begin)),
                appends_of(bench, spec, theirs, tasks),
            ]
            own, other = await bench.in_turn(f"saves of {tasks} tasks", sides)
            await _prove_tasks([ours, theirs])
        what = f"saves of {tasks} task{'s' if tasks > 1 else ''} / {spec.call}"
        figures.append(Figure("a2a-sdk", what, "saves/s", own, other, target))
    with bench.workspace.migrated("a2a") as settings:
        async with opened_peer(bench, spec, 1) as theirs, EventStore(settings) as store:
            ours = spec.make()
            ours.use(EventStoreTaskStore(store))
            fresh: Any = spec.make()

            async def read_first(task: Any) -> Any:
                fresh.use(EventStoreTaskStore(store))  # which has no task in memory
                return await fresh.read(task)

            figures += await _reads_of_tasks(bench, store, [ours, theirs], [read_first, theirs.read])
    return figures


async def _reads_of_tasks(
    bench: Benchmark, store: EventStore, sides: Sequence[Any], reads: Sequence[Callable[[Any], Awaitable[Any]]]
) -> list[Figure]:
    """Compare reading a task with a long history, and listing many; of two sides without tasks."""
    messages = conversation("a2a-sdk", EVENTS)
    for side in sides:
        await side.begin(messages)
        for message in messages:
            await side.append(side.prepare(message))
    [task] = sides[0].saved

    def read(act: Callable[[Any], Awaitable[Any]]) -> Callable[[], Awaitable[int]]:
        async def count() -> int:
            return len((await act(task)).history)

        return count

    acts = [bench.seconds_each(read(act), EVENTS) for act in reads]
    own, other = await bench.in_turn(f"a task of {EVENTS} messages", acts)
    what = f"get of a task of {EVENTS} messages, first / DatabaseTaskStore's"
    figures = [Figure("a2a-sdk", what, "s", own, other, Target(1, at_least=False))]

    number = max(2, bench.scale.events // _EVENTS_OF_SESSION)
    for side in sides:
        for message in (some[0] for some in conversations("a2a-sdk", number - 1, 1)):
            await side.begin([message])
            await side.append(side.prepare(message))
    await catch_up(store)
    acts = [bench.seconds_each(side.list_tasks, number) for side in sides]
    own, other = await bench.in_turn(f"a list of {number:,} tasks", acts)
    what = f"list of {number:,} tasks, the first page / DatabaseTaskStore's"
    return [*figures, Figure("a2a-sdk", what, "s", own, other, Target(1, at_least=False))]


async def _prove_tasks(sides: Sequence[Any]) -> None:
    """Make sure that each side returns the tasks that it has saved."""
    for side in sides:
        for task in islice(reversed(side.saved), _PROVED):
            if await side.read(task) != task:
                raise ServerError(f"{type(side).__name__} does not return the task {task.id} as it was saved")


async def google_adk(bench: Benchmark) -> list[Figure]:
    """Compare EventStoreSessionService with google-adk's own: appending, reading a session, and listing many."""
    spec = _spec("google-adk")
    spec.make()  # raises PeerMissing
    from agent_manager.adapters.google_adk import EventStoreSessionService

    figures = []
    for callers, target in _CALLERS.items():
        async with opened_peer(bench, spec, callers) as theirs, EventStoreSessionService(bench.store) as service:
            ours: Any = spec.make()
            ours.use(service)
            stored = bench.events_of(bench.store, "event_type = 'message.added'")
            sides = [
                bench.rate(Throughput(callers, ours.prepare, ours.drive, stored, ours.begin)),
                appends_of(bench, spec, theirs, callers),
            ]
            own, other = await bench.in_turn(f"{callers} sessions of google-adk", sides)
        what = f"append_event by {callers} callers / {spec.call}"
        figures.append(Figure("adk-sessions", what, "events/s", own, other, target))
    with bench.workspace.migrated("adk") as settings:
        async with (
            opened_peer(bench, spec, 1) as theirs,
            EventStore(settings) as store,
            EventStoreSessionService(store) as service,
        ):
            ours = spec.make()
            ours.use(service)
            figures += await _reads_of_sessions(bench, ours, theirs)
    return figures


async def _reads_of_sessions(bench: Benchmark, *sides: Any) -> list[Figure]:
    """Compare reading a session of google-adk, and listing many; of two sides without sessions."""
    messages = conversation("adk-sessions", EVENTS)
    for side in sides:
        await side.begin(messages)
        for message in messages:
            await side.append(side.prepare(message))

    def read(side: Any) -> Callable[[], Awaitable[int]]:
        async def act() -> int:
            return len(await side.read_session(messages[0].conversation_id))

        return act

    own, other = await bench.in_turn(
        f"a session of {EVENTS} events", [bench.seconds_each(read(side), EVENTS) for side in sides]
    )
    what = f"get_session of {EVENTS} events / DatabaseSessionService's"
    figures = [Figure("adk-sessions", what, "s", own, other, Target(1, at_least=False))]

    number = max(2, bench.scale.events // _EVENTS_OF_SESSION)
    for side in sides:
        await side.begin([some[0] for some in conversations("adk-sessions", number - 1, 1)])

    def listed(side: Any) -> Callable[[], Awaitable[int]]:
        async def act() -> int:
            return len(await side.list_sessions())

        return act

    own, other = await bench.in_turn(
        f"a list of {number:,} sessions", [bench.seconds_each(listed(side), number, times=1) for side in sides]
    )
    what = f"list_sessions of {number:,} sessions / DatabaseSessionService's"
    return [*figures, Figure("adk-sessions", what, "s", own, other, Target(0.01, at_least=False))]


async def openai_agents(bench: Benchmark) -> list[Figure]:
    """Compare EventStoreSession with the OpenAI Agents SDK's SQLAlchemySession: adding items, and reading 500."""
    spec = _spec("openai-agents")
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
        messages = conversation("openai-sessions", EVENTS)
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

        sides = [bench.seconds_each(act, EVENTS) for act in (read, read_peer)]
        ours, other = await bench.in_turn(f"{EVENTS} items", sides)
    what = f"get_items of {EVENTS} items / SQLAlchemySession's"
    return [*figures, Figure("openai-sessions", what, "s", ours, other, Target(1, at_least=False))]
