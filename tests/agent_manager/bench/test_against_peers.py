"""Comparing with a peer: one made here, which needs no package, and one that breaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from psycopg import sql

from agent_manager.bench import Bench, Place, Target, against_peers, log_reading, plotting, prepared_place, sessions
from agent_manager.bench.messages import Message
from agent_manager.bench.peers import Known, Peer, PeerMissing
from agent_manager.bench.rates import drive
from agent_manager.bench.scale import TRIAL
from eventstore import Settings
from eventstore.database.connection import Connection


@dataclass
class Kept:
    """What was kept of a message."""

    state: bytes


class Notebook:
    """A peer that writes texts into a table."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        self.connections: list[Connection] = [await place.connect(schema) for _ in range(connections)]
        await self.connections[0].execute("CREATE TABLE notes (conversation_id uuid, note text)")
        self.kept: list[str] = []

    async def begin(self, messages: Sequence[Message]) -> None:
        self.begun = len(messages)

    def prepared(self, message: Message) -> Any:
        return message.conversation_id, message.text

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        assert self.begun == sum(map(len, plan))
        return await drive(plan, self._append, seconds)

    async def _append(self, caller: int, given: Any) -> None:
        connection = self.connections[caller % len(self.connections)]
        await connection.execute("INSERT INTO notes VALUES (%s, %s)", given)

    def append(self, given: Sequence[Any]) -> None:
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
    """One that is read a session at a time."""

    async def append(self, given: Any) -> None:  # type: ignore[override]
        await self._append(0, given)


class Torn(Notebook):
    """One that fails in the middle."""

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        raise LookupError("the page is gone")


class Absent(Notebook):
    """One that cannot run here."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        await super().open(place, schema, connections)
        raise PeerMissing("it needs a desk")


class Given(Known):
    """A peer that is no module of the package."""

    def make(self) -> Peer:
        return {"notebook": Notebook, "torn": Torn, "absent": Absent, "diary": Diary}[self.name]()


GIVEN = tuple(Given(name, "writing", (), Target(30)) for name in ("torn", "notebook", "absent", "diary"))


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[Bench]:
    with prepared_place(settings) as place:
        async with Bench(place, TRIAL) as bench:
            yield bench


async def schemas(bench: Bench) -> set[str]:
    async with bench.connection() as connection:
        pattern = sql.SQL("SELECT n.nspname FROM pg_namespace n WHERE n.nspname ~ 'peer'")
        return {str(name) for (name,) in await (await connection.execute(pattern)).fetchall()}


async def test_each_peer_that_works_gives_a_figure_and_the_others_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_peers, "PEERS", GIVEN[:3])
    (figure,) = await against_peers.against_peers(bench)
    assert "notebook's writing" in figure.what
    assert (figure.target, len(figure.ratios)) == (Target(30), TRIAL.runs)
    assert figure.ours[0] > 0
    assert figure.other[0] > 0
    assert bench.skipped == ["torn: failed: LookupError: the page is gone", "absent: it needs a desk"]
    assert await schemas(bench) == set()


async def test_the_log_is_read_beside_a_peers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reading, "_PEER", GIVEN[1])
    figures = await log_reading.log_reading(bench)
    assert [figure.target for figure in figures] == [Target(3), None, None]
    assert all(figure.ratio > 0 for figure in figures)


async def test_a_conversation_is_read_beside_a_peers_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "_PEER", GIVEN[3])
    figures = await sessions.sessions(bench)
    assert [figure.target for figure in figures] == [Target(0.2, at_least=False), None]
    assert all(figure.ratio > 0 for figure in figures)
    assert await schemas(bench) == set()
    monkeypatch.setattr(sessions, "_PEER", GIVEN[2])
    assert await sessions.sessions(bench) == []
    assert bench.skipped == ["sessions: it needs a desk"]


async def test_the_plot_has_a_curve_for_the_store_for_the_limit_and_for_each_peer_that_works(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotting, "PEERS", GIVEN[:3])
    found = await plotting.curves(bench, (1, 2))
    assert list(found) == ["eventstore", "bare INSERT", "notebook"]
    for curve in found.values():
        assert list(curve) == [1, 2]
        assert min(curve.values()) > 0
    assert len(bench.skipped) == 2
    assert await schemas(bench) == set()
