"""The peers that are installed, and the remarks on those that are not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from eventstore import Settings
from tools.benchmark.measurement import TRIAL, Benchmark
from tools.benchmark.messages import conversations
from tools.benchmark.peers import PEERS, Peer, PeerMissing, PeerSpec, opened_peer
from tools.benchmark.peers.message_db import FOLDER
from tools.benchmark.workspace import Workspace, prepared_workspace

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
"""The folder that the caller names; no setting of theirs reaches the tests otherwise."""


@asynccontextmanager
async def opened(workspace: Workspace, spec: PeerSpec) -> AsyncIterator[Peer]:
    async with Benchmark(workspace, TRIAL) as bench, opened_peer(bench, spec, 2) as peer:
        yield peer


def test_every_peer_is_listed_here() -> None:
    assert [spec.name for spec in PEERS] == list(MODULES)


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("spec", PEERS, ids=lambda spec: spec.name)
async def test_a_peer_appends_messages_of_several_callers(
    clean_environment: None, superuser_url: str, monkeypatch: pytest.MonkeyPatch, spec: PeerSpec
) -> None:
    for module in MODULES[spec.name]:
        pytest.importorskip(module, exc_type=ImportError)
    if spec.name == "message-db":
        if FILES_OF_MESSAGE_DB is None:
            pytest.skip(f"{FOLDER} does not say where its files are")
        monkeypatch.setenv(FOLDER, FILES_OF_MESSAGE_DB)
    with prepared_workspace(Settings(database_url=superuser_url, allow_superuser=True)) as workspace:
        async with opened(workspace, spec) as peer:
            plan = conversations("peers", 2, 5)
            await peer.begin([message for messages in plan for message in messages])
            rate = await peer.drive([[peer.prepare(message) for message in some] for some in plan], 60)
            stored = Benchmark(workspace, TRIAL).counter(peer.stored, workspace.further(spec.schema_suffix))
            assert rate.items == await stored() > 0


def test_a_missing_peer_names_the_packages_to_install() -> None:
    absent = PeerSpec("nothing-such", "call", ("nothing-such",))
    with pytest.raises(PeerMissing, match=r"pip install '\.\[bench\]'"):
        absent.make()


async def test_message_db_names_the_folder_of_its_files(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    spec = next(spec for spec in PEERS if spec.name == "message-db")
    with prepared_workspace(settings) as workspace, pytest.raises(PeerMissing, match=FOLDER):
        async with opened(workspace, spec):
            pass
