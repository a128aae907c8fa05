"""The peers: alternatives to this store, one module each. A peer that is not installed is skipped with a message."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from eventstore.errors import EventStoreError
from tools.benchmark.measurement import Benchmark, Figure, Rate, Side, Target, Throughput, drive
from tools.benchmark.messages import Message
from tools.benchmark.workspace import Workspace

INSTALL = "pip install '.[bench]'"
_CALLERS = 16


class PeerMissing(Exception):
    """A peer cannot run here. The text says why, and what to do about it if anything can be done."""


class Peer(ABC):
    """A store of messages in PostgreSQL, used as its documentation recommends.

    Each message is one call that returns when the message is durable.

    Attributes:
        stored: an SQL query that counts the messages in its tables.
    """

    stored: str

    @abstractmethod
    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        """Create the tables in the schema and open the connections: one a caller, or as many as the server has left.

        Raises:
            PeerMissing: it cannot run in this workspace.
        """

    async def begin(self, messages: Sequence[Message]) -> None:  # noqa: B027 - most peers need nothing
        """Prepare for messages of these conversations; the time is not measured."""

    @abstractmethod
    def prepare(self, message: Message) -> Any:
        """Return the message in the peer's own form; the time is not measured."""

    async def append(self, given: Any) -> None:
        """Append one prepared message."""
        raise NotImplementedError

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> Rate:
        """Append each caller's messages in sequence, all callers concurrently; return the rate of messages."""
        return await drive(plan, lambda _, given: self.append(given), seconds)

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A peer that may be installed.

    Attributes:
        name: its name; its module has underscores instead of hyphens, and its class is the module's ``peer``.
        call: the call that is measured.
        packages: the distributions that it needs.
        target: the target at 16 callers; None if it is measured as information.
    """

    name: str
    call: str
    packages: tuple[str, ...]
    target: Target | None = None

    @property
    def schema_suffix(self) -> str:
        """The end of the name of its schema."""
        return f"peer_{self.name.replace('-', '_')}"

    def make(self) -> Peer:
        """Return the peer, not yet open.

        Raises:
            PeerMissing: a package is missing.
        """
        module = f"{__name__}.{self.name.replace('-', '_')}"
        try:
            peer: Peer = importlib.import_module(module).peer()
        except ImportError as error:
            raise PeerMissing(f"{error}: {INSTALL}") from error
        return peer


PEERS = (
    PeerSpec("eventsourcing", "PostgresApplicationRecorder.insert_events", ("eventsourcing",), Target(30)),
    PeerSpec("google-adk", "DatabaseSessionService.append_event", ("google-adk", "asyncpg"), Target(30)),
    PeerSpec("openai-agents", "SQLAlchemySession.add_items", ("openai-agents", "SQLAlchemy", "asyncpg"), Target(30)),
    PeerSpec("a2a-sdk", "DatabaseTaskStore.save", ("a2a-sdk", "SQLAlchemy", "asyncpg")),
    PeerSpec("langgraph", "AsyncPostgresSaver.aput", ("langgraph-checkpoint-postgres",)),
    PeerSpec("logicblocks", "EventStream.publish", ("logicblocks.event.store",)),
    PeerSpec("message-db", "write_message", ()),
)


async def append_of_peers(bench: Benchmark) -> list[Figure]:
    """Compare 16 concurrent appends of the same messages with those of each peer that is installed and works."""
    figures = [await _append_of(bench, spec) for spec in PEERS]
    return [figure for figure in figures if figure is not None]


async def _append_of(bench: Benchmark, spec: PeerSpec) -> Figure | None:
    try:
        async with opened_peer(bench, spec, _CALLERS) as peer:
            theirs = appends_of(bench, spec, peer, _CALLERS)
            ours, other = await bench.in_turn(spec.name, [bench.appends(_CALLERS), theirs])
    except PeerMissing as missing:
        bench.skip(f"{spec.name}: {missing}")
        return None
    except EventStoreError:  # ours, or the proof of a side
        raise
    except Exception as error:  # a peer may raise anything
        bench.skip(f"{spec.name}: failed: {type(error).__name__}: {error}")
        return None
    what = f"{_CALLERS} concurrent appends / {spec.name}'s {spec.call}"
    return Figure("peers", what, "events/s", ours, other, spec.target)


def appends_of(bench: Benchmark, spec: PeerSpec, peer: Peer, callers: int) -> Side:
    """Return the side that appends messages to an open peer."""
    stored = bench.counter(peer.stored, bench.workspace.further(spec.schema_suffix))
    return bench.rate(Throughput(callers, peer.prepare, peer.drive, stored, peer.begin))


@asynccontextmanager
async def opened_peer(bench: Benchmark, spec: PeerSpec, connections: int) -> AsyncIterator[Any]:
    """Open a peer in a schema of its own, which is dropped at the end."""
    peer = spec.make()
    with bench.workspace.own_schema(spec.schema_suffix) as schema:
        try:
            await peer.open(bench.workspace, schema, connections)
            yield peer
        finally:
            await peer.close()
