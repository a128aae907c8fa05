"""LangGraph's store of items on the event store; for langgraph-checkpoint 4.3.

Putting and deleting an item are events, so that every value that an item ever had is in the log. The table of the
current items is written in the transaction of the append (:mod:`projections.inline`). The events of all namespaces with
the same first label, and the same user, are in one conversation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)
from psycopg.types.json import Jsonb

from agent_manager.adapters.langgraph_search import MAX_COMPARED, Index, TooManyVectors, Vectors
from agent_manager.adapters.store_access import StoreAccess
from eventstore import ApplicationEvent, ConversationCreated, EventData, EventStore, Settings, SyncEventStore
from eventstore.database.queries import query
from eventstore.errors import InputError
from eventstore.ids import conversation_uuid
from projections import InlineAppender
from projections.custom_projections import from_file

ITEMS = from_file(Path(__file__).with_name("langgraph_items.sql"))
"""The projection of the table of items. Name it in ``EVENTSTORE_PROJECTIONS`` to rebuild and verify the table."""

PUT, DELETED, REFRESHED = "langgraph.item_put", "langgraph.item_deleted", "langgraph.items_refreshed"
_PACKAGE = "agent_manager.adapters"
_OPERATIONS = 1000
"""Operations of all waiting callers that are run together, at least those of one caller."""
_OPERATORS = frozenset({"$eq", "$ne", "$gt", "$gte", "$lt", "$lte"})
_SWEEP_MINUTES = 5.0
"""The interval at which expired items are swept unless the configuration sets another, as in LangGraph's own stores."""
_logger = logging.getLogger(__name__)
Namespace = tuple[str, ...]


class EventStoreStore(BaseStore):
    """A store of items for graphs. Use it as a context manager, synchronous or asynchronous like its store::

        with EventStoreStore.from_conn_string("postgresql://…") as store:
            graph = builder.compile(store=store)

    Expired items are hidden at once. A time to live is extended by a read if a tenth of it has passed. A search with a
    ``query`` compares the embeddings of all items that its filter matches, if there is an ``index``; without one, the
    query has no effect, as in LangGraph's own stores.

    Args:
        store: an open store, which the caller closes. Its login must be allowed to create the table of items once.
        tenant, user: on whose behalf items are read and written. Each user has items of their own; without a user, they
            are those of the tenant.
        ttl: LangGraph's defaults for the time to live of items, in minutes.
        index: LangGraph's configuration of semantic search (:class:`~agent_manager.adapters.langgraph_search.Index`).
    """

    supports_ttl = True

    def __init__(
        self,
        store: EventStore | SyncEventStore,
        *,
        tenant: str | None = None,
        user: str | None = None,
        ttl: TTLConfig | None = None,
        index: IndexConfig | None = None,
    ) -> None:
        super().__init__()
        self.ttl_config = ttl
        self.index_config = index
        self._index = None if index is None else Index(index)
        self._access = StoreAccess(store)
        self._store = self._access.store
        self._caller = self._store.caller(tenant, user)
        self._scope = {"tenant": self._caller.tenant, "owner": self._caller.user or ""}
        self._appender = InlineAppender(self._store, [ITEMS])
        self._waiting: deque[tuple[Sequence[Op], Vectors, asyncio.Future[list[Result]]]] = deque()
        self._running = asyncio.Lock()
        self._sweeper: Future[None] | None = None
        self._is_stopping = asyncio.Event()

    @classmethod
    @contextmanager
    def from_conn_string(cls, conn_string: str | None = None, **options: Any) -> Iterator[Self]:
        """Open a store on a server, with an event loop of its own, and the items in it.

        Args:
            conn_string: the URL of a database; by default what the environment and ``.env`` name.
            options: see the class.
        """
        settings = Settings() if conn_string is None else Settings(database_url=conn_string)
        with SyncEventStore(settings) as store, cls(store, **options) as items:
            yield items

    def setup(self) -> None:
        """Do nothing, for applications that call it: opening the store has created the table."""

    def __enter__(self) -> Self:
        self._access.wait(self._appender.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._access.wait(self._close(*error))

    async def __aenter__(self) -> Self:
        await self._access.run(self._appender.__aenter__())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._access.run(self._close(*error))

    async def _close(self, *error: object) -> None:
        await self._stop_sweeper(None)
        await self._appender.__aexit__(*error)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run operations: first those that read, then those that write, in their order."""
        ops = list(ops)
        return self._access.wait(self._batch(ops, {} if self._index is None else self._index.embedded(ops)))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See :meth:`batch`."""
        ops = list(ops)
        vectors = {} if self._index is None else await self._index.aembedded(ops)
        return await self._access.run(self._batch(ops, vectors))

    def sweep_ttl(self) -> int:
        """Record expired items as deleted, and return their number."""
        return self._access.wait(self._sweep())

    async def asweep_ttl(self) -> int:
        """See :meth:`sweep_ttl`."""
        return await self._access.finish(self._sweep())

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Future[None]:
        """Begin to sweep expired items regularly, if the store has a configuration of times to live.

        Args:
            sweep_interval_minutes: the time between two sweeps; by default that of the configuration, or 5.

        Returns:
            a future that is done when the sweeper has stopped, and stops it if it is cancelled.
        """
        if not self.ttl_config:
            stopped: Future[None] = Future()
            stopped.set_result(None)
            return stopped
        if self._sweeper is None or self._sweeper.done():
            minutes = sweep_interval_minutes or self.ttl_config.get("sweep_interval_minutes") or _SWEEP_MINUTES
            self._is_stopping = asyncio.Event()
            sweeps = self._sweep_regularly(minutes * 60, self._is_stopping)
            self._sweeper = asyncio.run_coroutine_threadsafe(sweeps, self._store.connections.loop)
        return self._sweeper

    async def astart_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> asyncio.Future[None]:
        """See :meth:`start_ttl_sweeper`."""
        return asyncio.wrap_future(self.start_ttl_sweeper(sweep_interval_minutes))

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Stop the sweeper, after a sweep that has begun; leaving the store's context stops it, too.

        Args:
            timeout: how long to wait for the sweep, in seconds; by default until it ends.

        Returns:
            whether no sweeper is running any more.
        """
        return self._access.wait(self._stop_sweeper(timeout))

    async def astop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """See :meth:`stop_ttl_sweeper`."""
        return await self._access.run(self._stop_sweeper(timeout))

    async def _sweep_regularly(self, seconds: float, is_stopping: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(is_stopping.wait(), seconds)
                return
            try:
                number = await self.asweep_ttl()
            except Exception:
                _logger.exception("expired items of LangGraph's store were not swept: the next sweep tries again")
            else:
                _logger.log(logging.INFO if number else logging.DEBUG, "%d expired items were swept", number)

    async def _stop_sweeper(self, seconds: float | None) -> bool:
        self._is_stopping.set()
        if self._sweeper is None or self._sweeper.done():
            return True
        done, _ = await asyncio.wait([asyncio.wrap_future(self._sweeper)], timeout=seconds)
        return bool(done)

    async def _batch(self, ops: Sequence[Op], vectors: Vectors) -> list[Result]:
        """Run operations, together with those of other callers that come while others are running."""
        for op in ops:
            validate_op_namespace(op)
        results: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._waiting.append((ops, vectors, results))
        try:
            async with self._running:
                if not results.done():
                    await self._run_waiting()
            return await results
        finally:
            results.cancel()  # unless it is done: the caller was cancelled

    async def _run_waiting(self) -> None:
        callers: list[tuple[Sequence[Op], Vectors, asyncio.Future[list[Result]]]] = []
        number = 0
        while self._waiting and number < _OPERATIONS:
            if not self._waiting[0][2].done():
                callers.append(self._waiting[0])
                number += len(callers[-1][0])
            self._waiting.popleft()
        try:
            every = ChainMap(*(dict(vectors) for _, vectors, _ in callers))
            rest = await self._run_all([op for ops, _, _ in callers for op in ops], every)
        except Exception:
            for ops, vectors, results in callers:  # one by one, so that no caller gets the error of another
                if results.done():
                    continue
                try:
                    results.set_result(await self._run_all(ops, vectors))
                except Exception as error:
                    results.set_exception(error)
            return
        except BaseException:
            self._waiting.extendleft(reversed(callers))
            raise
        for ops, _, results in callers:
            if not results.done():
                results.set_result(rest[: len(ops)])
            rest = rest[len(ops) :]

    async def _run_all(self, ops: Sequence[Op], vectors: Vectors) -> list[Result]:
        gets = [op for op in ops if isinstance(op, GetOp)]
        reads = {repr(op): op for op in ops if isinstance(op, SearchOp | ListNamespacesOp)}
        found = await self._get(gets) if gets else {}
        read = dict(zip(reads, await asyncio.gather(*(self._read(op, vectors) for op in reads.values())), strict=True))
        await self._put([op for op in ops if isinstance(op, PutOp)], vectors)
        return [found.get((_path(op.namespace), op.key)) if isinstance(op, GetOp) else read.get(repr(op)) for op in ops]

    async def _read(self, op: SearchOp | ListNamespacesOp, vectors: Vectors) -> Result:
        if isinstance(op, ListNamespacesOp):
            return await self._namespaces(op)
        return await (self._search(op) if self._index is None or not op.query else self._most_similar(op, vectors))

    # Reading

    async def _rows(self, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
        view = self._store.tables(self._caller, on_primary=True)
        return await view.fetch(query(_PACKAGE, name), self._scope | parameters)

    async def _get(self, ops: Iterable[GetOp]) -> dict[tuple[str, str], Item]:
        wanted = {(_path(op.namespace), op.key): op.refresh_ttl for op in ops}
        rows = await self._rows("items", paths=[path for path, _ in wanted], keys=[key for _, key in wanted])
        await self._refresh((row[0], row[1], row[2]) for row in rows if row[6] and wanted[row[1], row[2]])
        return {(row[1], row[2]): Item(**_members(row)) for row in rows}

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        first, last = _range(op.namespace_prefix)
        rows = await self._rows(
            "search_items", first=first, last=last, filter=Jsonb(_conditions(op.filter or {})),
            limit=op.limit, offset=op.offset,
        )  # fmt: skip
        if op.refresh_ttl:
            await self._refresh((row[0], row[1], row[2]) for row in rows if row[6])
        return [SearchItem(**_members(row)) for row in rows]

    async def _most_similar(self, op: SearchOp, vectors: Vectors) -> list[SearchItem]:
        """Return the items whose texts are most similar to a query, the most similar first."""
        assert self._index is not None
        first, last = _range(op.namespace_prefix)
        conditions = Jsonb(_conditions(op.filter or {}))
        rows = await self._rows("item_vectors", first=first, last=last, filter=conditions, limit=MAX_COMPARED + 1)
        if len(rows) > MAX_COMPARED:
            raise TooManyVectors(op.namespace_prefix)
        scores = await asyncio.to_thread(self._index.scores, vectors[True, str(op.query)], rows)
        best = dict(scores[op.offset :][: op.limit])
        gets = [GetOp(_namespace(path), key, refresh_ttl=op.refresh_ttl) for path, key in best]
        found = await self._get(gets) if gets else {}
        return [
            SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at, score)
            for place, score in best.items()
            if (item := found.get(place)) is not None
        ]

    async def _namespaces(self, op: ListNamespacesOp) -> list[Namespace]:
        conditions = op.match_conditions or ()
        prefix: Namespace = next((condition.path for condition in conditions if condition.match_type == "prefix"), ())
        literal = prefix[: prefix.index("*")] if "*" in prefix else prefix
        first, last = _range(literal)
        found: dict[Namespace, None] = {}
        for (path,) in await self._rows("item_paths", first=first, last=last):
            namespace = _namespace(path)
            if all(_matches(namespace, condition) for condition in conditions):
                found[namespace[: op.max_depth]] = None
        return sorted(found)[op.offset :][: op.limit]

    # Writing

    async def _put(self, ops: Sequence[PutOp], vectors: Vectors) -> None:
        deleted = {(_path(op.namespace), op.key) for op in ops if op.value is None}
        present = set[tuple[str, str]]()
        if deleted:
            rows = await self._rows("items", paths=[path for path, _ in deleted], keys=[key for _, key in deleted])
            present = {(row[1], row[2]) for row in rows}
        events: defaultdict[str, list[EventData]] = defaultdict(list)
        for op in ops:
            place = _path(op.namespace), op.key
            if op.value is not None or place in present:
                stored = {} if self._index is None else self._index.stored(op, vectors)
                events[op.namespace[0]].append(self._event(*place, op.value, op.ttl, stored))
                (present.discard if op.value is None else present.add)(place)
        await self._append(events)

    def _event(
        self, path: str, key: str, value: Any, ttl: float | None = None, vectors: dict[str, str] | None = None
    ) -> ApplicationEvent:
        content: dict[str, Any] = {"key": key, "path": path}
        content |= {} if ttl is None else {"ttl": float(ttl)}
        content |= {} if self._caller.user is None else {"user": self._caller.user}
        if value is None:
            return ApplicationEvent(DELETED, content)
        if not isinstance(value, dict):
            raise InputError(f"the value of the item {key!r}: is a {type(value).__name__}: give a dict")
        content |= {"vectors": vectors} if vectors else {}
        return ApplicationEvent(PUT, content | {"value": value})

    async def _append(self, events: dict[str, list[EventData]]) -> None:
        await asyncio.gather(*(self._append_to(label, each) for label, each in events.items()))

    async def _append_to(self, label: str, events: list[EventData]) -> None:
        """Append events to the conversation of the namespaces with a first label."""
        tenant, user = self._caller.tenant, self._caller.user
        given_id = "/".join(("langgraph.store", user or "", label))
        await self._appender.append(
            conversation_uuid(tenant, given_id),
            events,
            begin=ConversationCreated(name=f"LangGraph store: {label}"[:255], given_id=given_id),
            tenant=tenant,
            user=user,
        )

    async def _refresh(self, items: Iterable[tuple[UUID, str, str]]) -> None:
        places: defaultdict[str, list[list[str]]] = defaultdict(list)
        for _, path, key in items:
            places[_namespace(path)[0]].append([path, key])
        await self._append({label: [ApplicationEvent(REFRESHED, {"items": each})] for label, each in places.items()})

    async def _sweep(self) -> int:
        rows = await self._rows("expired_items")
        events: defaultdict[str, list[EventData]] = defaultdict(list)
        for path, key in rows:
            events[_namespace(path)[0]].append(self._event(path, key, None))
        await self._append(events)
        return len(rows)


def _path(namespace: Namespace) -> str:
    return "".join(label.replace("%", "%25").replace("/", "%2F") + "/" for label in namespace)


def _namespace(path: str) -> Namespace:
    return tuple(label.replace("%2F", "/").replace("%25", "%") for label in path.split("/")[:-1])


def _range(prefix: Namespace) -> tuple[str, str]:
    """Return the least path that begins with the labels, and the least one after all of these."""
    path = _path(prefix)
    return path, path[:-1] + "0" if path else "\U0010ffff"


def _members(row: Sequence[Any]) -> dict[str, Any]:
    _, path, key, value, created_at, updated_at, _ = row
    return {
        "value": value,
        "key": key,
        "namespace": _namespace(path),
        "created_at": created_at,
        "updated_at": updated_at,
    }


def _conditions(wanted: dict[str, Any]) -> list[tuple[str, str, Any]]:
    conditions = []
    for member, value in wanted.items():
        operators = value if isinstance(value, dict) and any(str(name)[:1] == "$" for name in value) else {"$eq": value}
        for operator, operand in operators.items():
            if operator not in _OPERATORS:
                raise ValueError(
                    f"filter: {operator!r} is not an operator: give one of {', '.join(sorted(_OPERATORS))}"
                )
            conditions.append((member, operator, operand))
    return conditions


def _matches(namespace: Namespace, condition: MatchCondition) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    labels = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, labels, strict=True))
