"""Forks on the command line: made, compared, replayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from support.commandline import Eventstore, rows_of

from eventstore import EventStore, Settings
from projections import catch_up

pytestmark = pytest.mark.shared_database


@pytest.fixture
def trip(empty: Eventstore) -> Eventstore:
    """The command line on a tenant with the conversation sample-trip."""
    assert empty("seed").code == 0
    return empty


@pytest.fixture
def caught_up(settings: Settings) -> Callable[[], None]:
    """Bring the read tables up to the log."""

    async def work() -> None:
        async with EventStore(settings) as store:
            await catch_up(store)

    return lambda: asyncio.run(work())


def contents(program: Eventstore, conversation: str) -> list[str]:
    return [message["content"] for message in rows_of(program, "messages", conversation)]


def test_a_conversation_is_forked_edited_and_compared(trip: Eventstore, caught_up: Callable[[], None]) -> None:
    caught_up()
    whole = rows_of(trip, "messages", "sample-trip")
    made = trip("fork", "sample-trip", "--version", str(whole[1]["version"]), "--name", "another way")
    assert (made.code, made.err) == (0, "")
    fork = made.out.strip()
    caught_up()
    assert contents(trip, fork) == [message["content"] for message in whole[:2]]
    edited = json.loads(trip("fork", fork, "--before", whole[1]["id"], "--json").out)
    assert set(edited) == {"conversation_id", "source", "position"}
    caught_up()
    assert contents(trip, edited["conversation_id"]) == [whole[0]["content"]]
    shown = trip("conversation", fork)
    assert (shown.code, "another way" in shown.out) == (0, True)
    compared = trip("compare", fork, "sample-trip")
    assert (compared.code, compared.err) == (0, "")
    assert f"up to version {whole[1]['version']}" in compared.out
    assert [line for line in compared.lines if line.startswith("+")]
    found = json.loads(trip("compare", fork, "sample-trip", "--json").out)
    assert [message["id"] for message in found["added"]] == [message["id"] for message in whole[2:]]
    assert found["removed"] == []
    assert trip("compare", fork, fork).err == "nothing differs\n"


def test_a_fork_has_the_name_of_its_conversation_unless_it_gets_another(
    trip: Eventstore, caught_up: Callable[[], None]
) -> None:
    caught_up()
    fork = trip("fork", "sample-trip").out.strip()
    caught_up()
    names = {row["id"]: row["name"] for row in rows_of(trip, "conversations")}
    given = {row["given_id"]: row["name"] for row in rows_of(trip, "conversations")}
    assert names[fork] == given["sample-trip"] != ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("fork", "sample-trip", "--version", "99999"), "has no version 99999"),
        (("fork", "sample-trip", "--version", "1", "--before", "x"), "--version and --before"),
        (("fork", "sample-trip", "--before", "x"), "message"),
        (("fork", "nothing"), "no conversation has the id"),
        (("compare", "sample-trip"), "--other-version"),
        (("replay", "--speed", "0"), "above 0"),
        (("replay", "sample-trip", "--after", "1"), "--after"),
    ],
)
def test_a_wrong_call_says_why(trip: Eventstore, arguments: tuple[str, ...], word: str) -> None:
    result = trip(*arguments)
    assert result.code != 0
    assert word in " ".join(result.err.split())
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_events_are_replayed_as_json_lines_and_as_text(trip: Eventstore) -> None:
    fork = trip("fork", "sample-trip").out.strip()
    lines = trip("replay", fork, "--speed", "inf", "--json").out.splitlines()
    events = [json.loads(line) for line in lines]
    shared = rows_of(trip, "history", "sample-trip")
    assert [event["id"] for event in events[:-1]] == [event["id"] for event in shared]
    assert events[-1]["event_type"] == "conversation.forked"
    of_log = trip("replay", "--speed", "1000", "--longest-pause", "0.01", "--type", "message.added")
    assert (of_log.code, of_log.err) == (0, "")
    assert len(of_log.lines) == len(rows_of(trip, "history", "--type", "message.added"))
