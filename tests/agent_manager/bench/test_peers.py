"""The peers that are installed, and what is said of those that are not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent_manager.bench import Bench, Place, prepared_place
from agent_manager.bench.against_peers import opened_peer
from agent_manager.bench.messages import conversations
from agent_manager.bench.peers import PEERS, Known, Peer, PeerMissing
from agent_manager.bench.peers.message_db import FOLDER
from agent_manager.bench.scale import TRIAL
from eventstore import Settings

MODULES = {
    "eventsourcing": ("eventsourcing",),
    "google-adk": ("google.adk", "asyncpg"),
    "openai-agents": ("agents", "sqlalchemy", "asyncpg"),
    "a2a-sdk": ("a2a", "sqlalchemy", "asyncpg"),
    "langgraph": ("langgraph.checkpoint.postgres",),
    "logicblocks": ("logicblocks.event.store.adapters.postgres", "structlog"),
    "message-db": (),
}
FILES_OF_MESSAGE_DB = os.environ.get(FOLDER)
"""As the caller says it; no setting of theirs reaches the tests otherwise."""


@asynccontextmanager
async def opened(place: Place, known: Known) -> AsyncIterator[Peer]:
    async with Bench(place, TRIAL) as bench, opened_peer(bench, known, 2) as peer:
        yield peer


def test_every_peer_is_listed_here() -> None:
    assert [known.name for known in PEERS] == list(MODULES)


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("known", PEERS, ids=lambda known: known.name)
async def test_a_peer_appends_messages_of_several_callers(
    clean_environment: None, superuser_url: str, monkeypatch: pytest.MonkeyPatch, known: Known
) -> None:
    for module in MODULES[known.name]:
        pytest.importorskip(module, exc_type=ImportError)
    if known.name == "message-db":
        if FILES_OF_MESSAGE_DB is None:
            pytest.skip(f"{FOLDER} does not say where its files are")
        monkeypatch.setenv(FOLDER, FILES_OF_MESSAGE_DB)
    with prepared_place(Settings(database_url=superuser_url)) as place:
        async with opened(place, known) as peer:
            plan = conversations("peers", 2, 5)
            await peer.begin([message for messages in plan for message in messages])
            assert await peer.drive([[peer.prepared(message) for message in some] for some in plan], 60) > 0


def test_a_missing_peer_says_what_to_install() -> None:
    absent = Known("nothing-such", "call", ("nothing-such",))
    with pytest.raises(PeerMissing, match=r"pip install 'flowagents-eventstore\[bench\]'"):
        absent.make()


async def test_message_db_says_where_it_expects_its_files(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    known = next(known for known in PEERS if known.name == "message-db")
    with prepared_place(settings) as place, pytest.raises(PeerMissing, match=FOLDER):
        async with opened(place, known):
            pass
