"""What the walls cost, and many tenants.

A token checked, a user's rights and row level security, against the same without any of them; and many tenants against
one with as many events.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from uuid import UUID

from agent_manager.bench.figures import Figure, Target
from agent_manager.bench.growing import settle
from agent_manager.bench.messages import Message, conversation
from agent_manager.bench.rates import Throughput, driven, together
from agent_manager.bench.table_reading import MESSAGES, PAGE, seconds_each
from agent_manager.bench.work import Bench, Prepared, Side, opened, prepared
from agent_manager.identity import Directory, Gatekeeper, Identity, Scope
from eventstore import Append, EventStore, MessageAdded, NewEvent, Settings
from eventstore.caller import Caller, Whose
from eventstore.database.pool import View
from eventstore.database.queries import query
from projections import Reader, catch_up, named

_TARGET = Target(0.9)
_CALLERS = 16
_USER = "ana"
_WARM_UP = 20
_OPENED_MORE = 3
"""Times as many slices as elsewhere: see :func:`_anew`."""
_CONVERSATIONS = 100
"""Of each tenant."""
_READ = named(["conversations", "messages"])

Check = Callable[[], Awaitable[Identity]]


class _Open(EventStore):
    """A store that says for nobody that it asks, as without walls it need not."""

    def tables(self, whose: Whose) -> View:
        return View(self.parts.reader, None)


async def walls(bench: Bench) -> list[Figure]:
    """Appends and pages behind the walls, and among many tenants."""
    figures = await _behind(bench)
    return figures + await _among(bench)


async def _behind(bench: Bench) -> list[Figure]:
    walled, free = bench.place.migrated("walled"), bench.place.migrated("open")
    async with opened(walled) as ours, _checking(ours) as check, _without_walls(bench, free) as other:
        appends = await bench.in_turn(
            f"{_CALLERS} callers behind walls",
            [
                bench.rate(Throughput(_CALLERS, prepared, driven(_as_user(ours, check)))),
                bench.rate(Throughput(_CALLERS, prepared, driven(_as_anybody(other)))),
            ],
        )
        said = conversation("walls", MESSAGES)
        for store, user in ((ours, _USER), (other, None)):
            await store.append(said[0].conversation_id, [message.event() for message in said], user=user)
            await catch_up(store, _READ)
            await settle(bench.place, store.settings.db_schema)
    pages = await bench.in_turn(
        "pages behind walls",
        [
            _anew(bench, lambda: EventStore(walled), said[0].conversation_id, is_walled=True),
            _anew(bench, lambda: _without_walls(bench, free), said[0].conversation_id, is_walled=False),
        ],
        slices=_OPENED_MORE * bench.scale.slices,
    )
    for settings in (walled, free):
        bench.place.drop_schema(settings.db_schema)
    return [
        _figure(f"{_CALLERS} callers append with tokens and walls / without", "events/s", appends),
        _figure(f"pages of {PAGE} messages with tokens and walls / without", "pages/s", _per_second(pages)),
    ]


@asynccontextmanager
async def _without_walls(bench: Bench, settings: Settings) -> AsyncIterator[EventStore]:
    """Open a store and take row-level security away from it, without which none would open."""
    async with bench.place.connections(1, settings.db_schema) as (connection,):
        await connection.execute(query("agent_manager.bench", "close_walls"))
        async with _Open(settings) as store:
            await connection.execute(query("agent_manager.bench", "open_walls"))
            yield store


@asynccontextmanager
async def _checking(store: EventStore) -> AsyncIterator[Check]:
    """Checks a token, as each request does."""
    directory = Directory(store)
    if store.tenant not in [tenant.id for tenant in await directory.tenants()]:
        await directory.add_tenant(store.tenant)
        await directory.add_user(store.tenant, _USER)
    key = await directory.add_key(store.tenant, "bench", user=_USER, scopes=[Scope.READ, Scope.WRITE])
    token = key.token.get_secret_value()
    async with Gatekeeper(store, store.settings) as gatekeeper:
        yield lambda: gatekeeper.identify(token)


def _as_user(store: EventStore, check: Check) -> Callable[[int, Prepared], Awaitable[None]]:
    async def append(_: int, given: Prepared) -> None:
        identity = await check()
        await store.append(given[0], given[1], tenant=identity.tenant, user=identity.user)

    return append


def _as_anybody(store: EventStore) -> Callable[[int, Prepared], Awaitable[None]]:
    async def append(_: int, given: Prepared) -> None:
        await store.append(given[0], given[1])

    return append


def _anew(
    bench: Bench,
    opening: Callable[[], AbstractAsyncContextManager[EventStore]],
    conversation_id: UUID,
    *,
    is_walled: bool,
) -> Side:
    """Seconds of a page out of the middle of a conversation.

    Over connections of its own each time: on which processor the server's process comes to lie makes more of a
    difference than all walls.
    """

    async def measure(seed: str) -> float:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(opening())
            check = await stack.enter_async_context(_checking(store)) if is_walled else None
            whose = Caller(store.tenant, _USER if is_walled else None)
            cursor = (await Reader(store, caller=whose).messages(conversation_id, limit=MESSAGES // 2)).next

            async def read() -> int:
                reader = Reader(store, caller=whose if check is None else (await check()).caller)
                return len(await reader.messages(conversation_id, limit=PAGE, after=cursor))

            for _ in range(_WARM_UP):
                await read()
            return await seconds_each(bench, read, PAGE)(seed)

    return measure


async def _among(bench: Bench) -> list[Figure]:
    number = max(bench.scale.events // _CONVERSATIONS, 2)
    many, one = bench.place.migrated("tenants"), bench.place.migrated("tenant")
    async with opened(many) as ours, opened(one) as other:
        await _fill(bench, ours, number, lambda tenant: f"tenant-{tenant}")
        await _fill(bench, other, number, lambda _: "tenant-0")
        for settings in (many, one):
            await settle(bench.place, settings.db_schema)
        names = [f"tenant-{tenant}" for tenant in range(number)]
        appends = await bench.in_turn(
            f"appends among {number:,} tenants",
            [_appends(bench, ours, names), _appends(bench, other, ["tenant-0"] * number)],
        )
        pages = await bench.in_turn(
            f"pages among {number:,} tenants",
            [_lists(bench, ours, names), _lists(bench, other, ["tenant-0"] * number)],
        )
    for settings in (many, one):
        bench.place.drop_schema(settings.db_schema)
    words = f"{number:,} tenants of {_CONVERSATIONS} conversations each / one with all of them"
    return [
        _figure(f"{_CALLERS} callers append, {words}", "events/s", appends),
        _figure(f"pages of {PAGE} conversations, {words}", "pages/s", _per_second(pages)),
    ]


def _figure(what: str, unit: str, sides: list[list[float]]) -> Figure:
    ours, other = sides
    return Figure("walls", what, unit, ours, other, _TARGET)


def _per_second(sides: list[list[float]]) -> list[list[float]]:
    return [[1 / seconds for seconds in side] for side in sides]


async def _fill(bench: Bench, store: EventStore, tenants: int, name: Callable[[int], str]) -> None:
    """An event for each conversation of each tenant."""
    waiting = iter(range(tenants))
    said = random.Random("walls").choices(conversation("walls", 50), k=_CONVERSATIONS)

    async def work() -> None:
        for tenant in waiting:
            appends = [
                Append(_conversation(tenant, place), [NewEvent(MessageAdded(role="user", content=message.text))])
                for place, message in enumerate(said)
            ]
            await store.append_all(appends, tenant=name(tenant))
            if tenant % 100 == 0:
                bench.tell(f"filling the log: {tenant * _CONVERSATIONS:,} of {tenants * _CONVERSATIONS:,}")

    await together(work() for _ in range(8))
    bench.tell("filling the read tables")
    await catch_up(store, _READ)


def _conversation(tenant: int, place: int) -> UUID:
    return UUID(int=(tenant << 64) + place + 1)


def _appends(bench: Bench, store: EventStore, names: list[str]) -> Side:
    """To conversations that are there, whichever."""
    source = random.Random("walls")

    async def append(_: int, event: NewEvent) -> None:
        tenant = source.randrange(len(names))
        place = _conversation(tenant, source.randrange(_CONVERSATIONS))
        await store.append(place, [event], tenant=names[tenant])

    return bench.rate(Throughput(_CALLERS, Message.event, driven(append)))


def _lists(bench: Bench, store: EventStore, names: list[str]) -> Side:
    """Seconds of a page of a tenant's conversations, whichever tenant."""
    source = random.Random("walls")

    async def read() -> int:
        reader = Reader(store, caller=Caller(source.choice(names)))
        return len(await reader.conversations(limit=PAGE, by="created"))

    return seconds_each(bench, read, PAGE)
