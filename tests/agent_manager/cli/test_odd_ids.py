"""Every command takes every id of a conversation, whatever characters it has."""

from __future__ import annotations

import json

import pytest
from support.commandline import Eventstore
from support.odd_ids import ODD_IDS

from eventstore import ConversationCreated, EventStore, MessageAdded, Settings
from projections import catch_up

pytestmark = [pytest.mark.shared_database, pytest.mark.slow]


@pytest.fixture
async def filled(empty: Eventstore, settings: Settings) -> Eventstore:
    async with EventStore(settings) as store:
        for number, name in enumerate(ODD_IDS):
            message = MessageAdded(role="user", content=f"train {number}")
            await store.append(name, [message], begin=ConversationCreated(name=name[:255]))
        await catch_up(store)
    return empty


@pytest.mark.parametrize("command", ["messages", "history", "conversation", "tasks"])
def test_a_command_takes_every_id(filled: Eventstore, command: str) -> None:
    for number, name in enumerate(ODD_IDS):
        result = filled(command, "--json", "--", name)
        assert (result.code, result.err) == (0, ""), name
        assert f"train {number}" in result.out or command == "tasks"


def test_a_search_takes_every_id(filled: Eventstore) -> None:
    for number, name in enumerate(ODD_IDS):
        [hit] = json.loads(filled("search", "train", f"--conversation={name}", "--json").out)["items"]
        assert hit["snippet"] == f"«train» {number}", name
