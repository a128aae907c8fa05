"""The cost of security: tokens, users' rights and row-level security, and many tenants."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from uuid import UUID

from agent_manager.auth import Authenticator, Directory, Identity, TokenScope
from eventstore import Append, EventStore, MessageAdded, NewEvent, Settings
from eventstore.concurrency import gather_or_raise
from eventstore.database.pools import ScopedPool
from eventstore.database.queries import query
from eventstore.scope import Caller, DataScope
from projections import Reader, catch_up, select_projections
from tools.benchmark.measurement import (
    Benchmark,
    Figure,
    PreparedAppend,
    Side,
    Target,
    Throughput,
    appender,
    driver,
    prepare_append,
)
from tools.benchmark.messages import Message, conversation
from tools.benchmark.read import MESSAGES, PAGE

_CALLERS = 16
_USER = "ana"
_WARM_UP_PAGES = 20
_SLICES_FACTOR = 3
"""The factor between the slices here and those elsewhere: see :func:`_page_of_messages`."""
_CONVERSATIONS = 100
"""Conversations of each tenant."""
_READ = select_projections(["conversations", "messages"])

Check = Callable[[], Awaitable[Identity]]


class _StoreWithoutScope(EventStore):
    """A store that sets no caller for its queries, which is possible only without row-level security."""

    def tables(self, scope: DataScope, *, on_primary: bool = False) -> ScopedPool:
        return ScopedPool(self.connections.reader, None)


async def security(bench: Benchmark) -> list[Figure]:
    """Compare appends and pages under row-level security with the same without; and many tenants with one."""
    return [*await _row_level_security(bench), *await _many_tenants(bench)]


async def _row_level_security(bench: Benchmark) -> list[Figure]:
    workspace = bench.workspace
    with workspace.migrated("secured") as secured, workspace.migrated("open") as unsecured:
        async with (
            EventStore(secured) as ours,
            _token_check(ours) as check,
            _without_security(bench, unsecured) as other,
        ):

            async def append_as_user(_: int, given: PreparedAppend) -> None:
                identity = await check()
                await ours.append(given[0], given[1], tenant=identity.tenant, user=identity.user)

            appends = await bench.in_turn(
                f"{_CALLERS} callers under row-level security",
                [
                    bench.rate(Throughput(_CALLERS, prepare_append, driver(act), bench.events_of(store)))
                    for act, store in ((append_as_user, ours), (appender(other), other))
                ],
            )
            messages = conversation("security", MESSAGES)
            for store, user in ((ours, _USER), (other, None)):
                await store.append(messages[0].conversation_id, [message.event() for message in messages], user=user)
                await catch_up(store, _READ)
                await workspace.vacuum_and_checkpoint(store.settings.db_schema)
        pages = await bench.in_turn(
            "pages under row-level security",
            [
                _page_of_messages(bench, lambda: EventStore(secured), messages[0].conversation_id, is_secured=True),
                _page_of_messages(
                    bench, lambda: _without_security(bench, unsecured), messages[0].conversation_id, is_secured=False
                ),
            ],
            slices=_SLICES_FACTOR * bench.scale.slices,
        )
    return [
        _figure(f"{_CALLERS} callers append with tokens and row-level security / without", "events/s", appends),
        _figure(f"pages of {PAGE} messages with tokens and row-level security / without", "pages/s", _rates(pages)),
    ]


@asynccontextmanager
async def _without_security(bench: Benchmark, settings: Settings) -> AsyncIterator[EventStore]:
    """Open a store and disable row-level security, without which no store would open."""
    async with bench.workspace.connections(1, settings.db_schema) as (connection,):
        await connection.execute(query("tools.benchmark", "enable_rls"))
        async with _StoreWithoutScope(settings) as store:
            await connection.execute(query("tools.benchmark", "disable_rls"))
            yield store


@asynccontextmanager
async def _token_check(store: EventStore) -> AsyncIterator[Check]:
    """Yield a function that checks a token, as each request does."""
    directory = Directory(store)
    if store.tenant not in [tenant.id for tenant in await directory.tenants()]:
        await directory.add_tenant(store.tenant)
        await directory.add_user(store.tenant, _USER)
    key = await directory.add_key(store.tenant, "bench", user=_USER, scopes=[TokenScope.READ, TokenScope.WRITE])
    token = key.token.get_secret_value()
    async with Authenticator(store, store.settings) as gatekeeper:
        yield lambda: gatekeeper.identify(token)


def _page_of_messages(
    bench: Benchmark,
    open_store: Callable[[], AbstractAsyncContextManager[EventStore]],
    conversation_id: UUID,
    *,
    is_secured: bool,
) -> Side:
    """Return a side that measures the seconds of a page from the middle of a conversation.

    Each measurement opens connections of its own: the processor on which the server's process runs makes more of a
    difference than row-level security does.
    """

    async def measure(seed: str) -> float:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(open_store())
            check = await stack.enter_async_context(_token_check(store)) if is_secured else None
            caller = Caller(store.tenant, _USER if is_secured else None)
            cursor = (await Reader(store, caller=caller).messages(conversation_id, limit=MESSAGES // 2)).next

            async def read() -> int:
                reader = Reader(store, caller=caller if check is None else (await check()).caller)
                return len(await reader.messages(conversation_id, limit=PAGE, after=cursor))

            for _ in range(_WARM_UP_PAGES):
                await read()
            return await bench.seconds_each(read, PAGE)(seed)

    return measure


async def _many_tenants(bench: Benchmark) -> list[Figure]:
    number = max(bench.scale.events // _CONVERSATIONS, 2)
    names, same = [f"tenant-{tenant}" for tenant in range(number)], ["tenant-0"] * number
    with bench.workspace.migrated("tenants") as many, bench.workspace.migrated("tenant") as one:
        async with EventStore(many) as ours, EventStore(one) as other:
            await _fill_tenants(bench, ours, names)
            await _fill_tenants(bench, other, same)
            for settings in (many, one):
                await bench.workspace.vacuum_and_checkpoint(settings.db_schema)
            sides = ((ours, names), (other, same))
            appends = await bench.in_turn(
                f"appends among {number:,} tenants", [_appends(bench, store, tenants) for store, tenants in sides]
            )
            pages = await bench.in_turn(
                f"pages among {number:,} tenants", [_pages(bench, store, tenants) for store, tenants in sides]
            )
    words = f"{number:,} tenants of {_CONVERSATIONS} conversations each / one with all of them"
    return [
        _figure(f"{_CALLERS} callers append, {words}", "events/s", appends),
        _figure(f"pages of {PAGE} conversations, {words}", "pages/s", _rates(pages)),
    ]


def _figure(what: str, unit: str, sides: list[list[float]]) -> Figure:
    ours, other = sides
    return Figure("security", what, unit, ours, other, Target(0.9))


def _rates(sides: list[list[float]]) -> list[list[float]]:
    return [[1 / seconds for seconds in side] for side in sides]


async def _fill_tenants(bench: Benchmark, store: EventStore, names: list[str]) -> None:
    """Append an event to each conversation of each tenant."""
    tenants = iter(enumerate(names))
    messages = random.Random("security").choices(conversation("security", 50), k=_CONVERSATIONS)

    async def work() -> None:
        for index, name in tenants:
            appends = [
                Append(_conversation(index, place), [NewEvent(MessageAdded(role="user", content=message.text))])
                for place, message in enumerate(messages)
            ]
            await store.append_all(appends, tenant=name)
            if index % 100 == 0:
                bench.report(f"filling the log: {index * _CONVERSATIONS:,} of {len(names) * _CONVERSATIONS:,}")

    await gather_or_raise(work() for _ in range(8))
    bench.report("filling the read tables")
    await catch_up(store, _READ)


def _conversation(tenant: int, place: int) -> UUID:
    return UUID(int=(tenant << 64) + place + 1)


def _appends(bench: Benchmark, store: EventStore, names: list[str]) -> Side:
    """Return a side that appends to random existing conversations."""
    rng = random.Random("security")

    async def append(_: int, event: NewEvent) -> None:
        tenant = rng.randrange(len(names))
        await store.append(_conversation(tenant, rng.randrange(_CONVERSATIONS)), [event], tenant=names[tenant])

    return bench.rate(Throughput(_CALLERS, Message.event, driver(append), bench.events_of(store)))


def _pages(bench: Benchmark, store: EventStore, names: list[str]) -> Side:
    """Return a side that measures the seconds of a page of the conversations of a random tenant."""
    rng = random.Random("security")

    async def read() -> int:
        reader = Reader(store, caller=Caller(rng.choice(names)))
        return len(await reader.conversations(limit=PAGE, by="created"))

    return bench.seconds_each(read, PAGE)
