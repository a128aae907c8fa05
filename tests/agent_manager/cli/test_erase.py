"""Erasing on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from support.commandline import Eventstore, rows_of

from eventstore import ConversationCreated, EventStore, MessageAdded, Settings
from projections import catch_up

pytestmark = pytest.mark.shared_database


@pytest.fixture
def caught_up(settings: Settings) -> Callable[[], None]:
    """Bring the read tables up to the log."""

    async def work() -> None:
        async with EventStore(settings) as store:
            await catch_up(store)

    return lambda: asyncio.run(work())


@pytest.fixture
def trip(empty: Eventstore, caught_up: Callable[[], None]) -> Eventstore:
    """The command line on a tenant with the conversation sample-trip."""
    assert empty("seed").code == 0
    caught_up()
    return empty


def contents(program: Eventstore, conversation: str) -> list[str]:
    return [message["content"] for message in rows_of(program, "messages", conversation)]


def test_a_dry_run_counts_and_nothing_is_erased_without_a_yes(trip: Eventstore) -> None:
    before = contents(trip, "sample-trip")
    planned = trip("erase", "conversation", "sample-trip", "--dry-run")
    assert (planned.code, planned.err) == (0, "")
    assert any(line.split() == ["messages", str(len(before))] for line in planned.lines)
    as_json = json.loads(trip("erase", "conversation", "sample-trip", "--dry-run", "--json").out)
    assert as_json[0]["rows"]["messages"] == len(before)
    refused = trip("erase", "conversation", "sample-trip")
    assert (refused.code, "--yes" in refused.err) == (1, True)
    assert contents(trip, "sample-trip") == before


def test_a_message_then_its_conversation_is_erased(trip: Eventstore, caught_up: Callable[[], None]) -> None:
    [first, second, *_] = rows_of(trip, "messages", "sample-trip")
    done = trip("erase", "event", second["id"], "--reason", "a slip", "--actor", "clerk", "--yes")
    assert (done.code, done.err, done.lines) == (0, "", ["erased 1 event(s) of 1 conversation(s)"])
    caught_up()
    assert contents(trip, "sample-trip")[:2] == [first["content"], ""]
    assert trip("messages", "sample-trip").lines[2].endswith("(erased)")
    again = trip("erase", "event", second["id"], "--conversation", "sample-trip", "--yes")
    assert again.lines == ["nothing to erase"]
    done = trip("erase", "conversation", "sample-trip", "--yes", "--json")
    assert json.loads(done.out)[0]["events"] > 5
    caught_up()
    assert set(contents(trip, "sample-trip")) == {""}
    receipts = rows_of(trip, "erase", "list")
    assert [(each["event_type"], each["actor"], each["reason"]) for each in receipts] == [
        ("event.erased", "clerk", "a slip"), ("conversation.erased", "", ""),
    ]  # fmt: skip
    assert "a slip" in trip("erase", "list").out


def test_a_user_is_erased(trip: Eventstore, settings: Settings, caught_up: Callable[[], None]) -> None:
    async def append() -> str:
        async with EventStore(settings) as store:
            events = [ConversationCreated(name="of ana"), MessageAdded(role="user", content="hello")]
            return str((await store.append(uuid4(), events, user="ana")).events[0].conversation_id)

    conversation = asyncio.run(append())
    caught_up()
    done = trip("erase", "user", "ana", "--yes")
    assert (done.code, done.lines) == (0, ["erased 2 event(s) of 1 conversation(s)"])
    caught_up()
    assert contents(trip, conversation) == [""]
    assert trip("erase", "user", "ana", "--yes").lines == ["nothing to erase"]


def test_what_does_not_exist_is_named(trip: Eventstore) -> None:
    for arguments in (("conversation", "no-such"), ("event", "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2f")):
        missing = trip("erase", *arguments, "--yes")
        assert (missing.code, arguments[1] in missing.err) == (1, True)
