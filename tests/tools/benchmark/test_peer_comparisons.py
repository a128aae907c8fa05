"""Comparing with a peer: one made here, which needs no package, and one that breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from psycopg import sql

from eventstore import Settings
from eventstore.database.connection import Connection
from tools.benchmark import peers, plot, read
from tools.benchmark.measurement import TRIAL, Benchmark, Rate, Target, drive
from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer, PeerMissing, PeerSpec
from tools.benchmark.workspace import Workspace, prepared_workspace


@dataclass
class Kept:
    """The stored members of a message."""

    state: bytes


class Notebook(Peer):
    """A peer that writes texts into a table."""

    stored = "SELECT count(*) FROM notes"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        self.connections: list[Connection] = [await workspace.connect(schema) for _ in range(connections)]
        await self.connections[0].execute("CREATE TABLE notes (conversation_id uuid, note text)")
        self.kept: list[str] = []

    async def begin(self, messages: Sequence[Message]) -> None:
        self.begun = len(messages)

    def prepare(self, message: Message) -> Any:
        return message.conversation_id, message.text

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> Rate:
        assert self.begun == sum(map(len, plan))
        return await drive(plan, self._insert, seconds)

    async def _insert(self, caller: int, given: Any) -> None:
        connection = self.connections[caller % len(self.connections)]
        await connection.execute("INSERT INTO notes VALUES (%s, %s)", given)

    def insert(self, given: Sequence[Any]) -> None:
        self.kept += [text for _, text in given]

    async def read_session(self, conversation_id: UUID) -> list[str]:
        cursor = await self.connections[0].execute(
            "SELECT note FROM notes WHERE conversation_id = %s", [conversation_id]
        )
        return [note for (note,) in await cursor.fetchall()]

    def read(self, section: int) -> Iterator[Any]:
        return iter([Kept(json.dumps(text).encode()) for text in self.kept])

    async def close(self) -> None:
        for connection in self.connections:
            await connection.close()


class Diary(Notebook):
    """A peer that is read a session at a time."""

    async def append(self, given: Any) -> None:
        await self._insert(0, given)


class Torn(Notebook):
    """A peer that fails in the middle."""

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> Rate:
        raise LookupError("the page is gone")


class Absent(Notebook):
    """A peer that cannot run here."""

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        await super().open(workspace, schema, connections)
        raise PeerMissing("it needs a pen")


class Given(PeerSpec):
    """A peer that is not a module of the package."""

    def __init__(self, name: str, kind: type[Peer]) -> None:
        super().__init__(name, "writing", (), Target(30))
        object.__setattr__(self, "_kind", kind)

    def make(self) -> Peer:
        return self._kind()  # type: ignore[attr-defined, no-any-return]


PEERS = (Given("torn", Torn), Given("notebook", Notebook), Given("absent", Absent))


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[Benchmark]:
    with prepared_workspace(settings) as workspace:
        async with Benchmark(workspace, TRIAL) as bench:
            yield bench


async def schemas(bench: Benchmark) -> set[str]:
    async with bench.connection() as connection:
        pattern = sql.SQL("SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ 'peer'")
        return {str(name) for (name,) in await (await connection.execute(pattern)).fetchall()}


async def test_each_peer_that_works_gives_a_figure_and_the_others_are_named(
    bench: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "PEERS", PEERS)
    (figure,) = await peers.append_of_peers(bench)
    assert "notebook's writing" in figure.what
    assert (figure.target, len(figure.ratios)) == (Target(30), TRIAL.runs)
    assert figure.ours[0] > 0
    assert figure.other[0] > 0
    assert bench.skipped == ["torn: failed: LookupError: the page is gone", "absent: it needs a pen"]
    assert await schemas(bench) == set()


async def test_the_log_is_read_beside_a_peers(bench: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "PEERS", [Given("eventsourcing", Notebook)])
    figures = await read.log(bench)
    assert [figure.target for figure in figures] == [Target(3), None, None]
    assert all(figure.ratio > 0 for figure in figures)


async def test_a_conversation_is_read_beside_a_peers_session(bench: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "PEERS", [Given("google-adk", Diary)])
    figures = await read.sessions(bench)
    assert [figure.target for figure in figures] == [Target(0.2, at_least=False), None]
    assert all(figure.ratio > 0 for figure in figures)
    assert await schemas(bench) == set()
    monkeypatch.setattr(read, "PEERS", [Given("google-adk", Absent)])
    with pytest.raises(PeerMissing, match="it needs a pen"):
        await read.sessions(bench)


async def test_the_plot_has_a_curve_for_the_store_for_the_limit_and_for_each_peer_that_works(
    bench: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plot, "PEERS", PEERS)
    found = await plot.measure_curves(bench, (1, 2))
    assert list(found) == ["eventstore", "bare INSERT", "notebook"]
    for curve in found.values():
        assert list(curve) == [1, 2]
        assert min(curve.values()) > 0
    assert len(bench.skipped) == 2
    assert await schemas(bench) == set()
