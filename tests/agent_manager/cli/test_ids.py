"""The beginning of an id is enough if no other id begins so; nothing of another tenant or user counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from support.commandline import Eventstore, rows_of
from support.plans import Kind, explain
from support.scoped_queries import open_as, set_scope
from support.servers import DatabaseServer

from agent_manager.auth import Directory
from eventstore import ConversationCreated, EventStore, MessageAdded, Settings, conversation_uuid
from eventstore.database.queries import query
from projections import catch_up

pytestmark = pytest.mark.shared_database

UUIDS = [UUID(f"0a6c0e0{digit}-1f0e-4d0c-9a43-0f6f1d0b7f2e") for digit in range(8)]
COMMANDS = [
    ("messages",),
    ("tasks",),
    ("history",),
    ("conversation",),
    ("search", "hello", "--conversation"),
]


@pytest.fixture
def talks(empty: Eventstore, settings: Settings) -> Eventstore:
    """The command line for a tenant with eight conversations without given ids, and four with them."""

    async def fill() -> None:
        async with EventStore(settings) as store:
            for uuid in UUIDS:
                await store.append(uuid, [ConversationCreated(name="x"), MessageAdded(role="user", content="hello")])
            for given in ("trip", "trip-7", "Journey", "100%_\\"):
                uuid = conversation_uuid(store.tenant, given)
                created = ConversationCreated(name=given, given_id=given)
                await store.append(uuid, [created, MessageAdded(role="user", content=f"hello {given}")], user="ana")
            foreign = [ConversationCreated(name="foreign", given_id="Journal")]
            await store.append(conversation_uuid("foreign", "Journal"), foreign, tenant="foreign")
            await catch_up(store)

    asyncio.run(fill())
    return empty


@pytest.mark.slow
def test_a_beginning_names_a_conversation_by_its_id(talks: Eventstore) -> None:
    for command in COMMANDS:
        whole = talks(*command, str(UUIDS[3]))
        assert (whole.code, "hello" in whole.out or command == ("tasks",)) == (0, True)
        for beginning in ("0a6c0e03", "0A6C0E03-1f", "0a6c0e031f0e4d", "0a6c0e03-"):
            assert talks(*command, beginning) == whole, (command, beginning)


@pytest.mark.slow
def test_a_beginning_names_a_conversation_by_its_given_id(talks: Eventstore) -> None:
    for command in COMMANDS:
        for beginning, given in (("J", "Journey"), ("trip-", "trip-7"), ("100%", "100%_\\")):
            whole = talks(*command, given)
            assert whole.code == 0
            assert talks(*command, beginning) == whole, (command, beginning)


def test_a_whole_id_goes_before_a_longer_one(talks: Eventstore) -> None:
    assert [row["content"] for row in rows_of(talks, "messages", "trip")] == ["hello trip"]


def test_an_ambiguous_beginning_is_an_error_that_names_the_candidates(talks: Eventstore) -> None:
    for command in COMMANDS:
        few, many = talks(*command, "tri"), talks(*command, "0a6c0e0")
        assert (few.code, many.code, few.out, many.out) == (1, 1, "", "")
        assert "tri: several ids begin so: trip, trip-7: type more" in few.err
        assert all(str(uuid) in many.err for uuid in UUIDS[:5])
        assert f"{UUIDS[4]} and others" in many.err


def test_the_candidates_are_ids_that_begin_as_typed(talks: Eventstore) -> None:
    uuids = [row["id"] for row in rows_of(talks, "conversations")]
    first = next(digit for digit in "0123456789abcdef" if sum(uuid.startswith(digit) for uuid in uuids) > 1)
    named = talks("messages", first).err.partition("several ids begin so: ")[2].split(":")[0]
    assert all(name.startswith(first) for name in named.removesuffix(" and others").split(", "))


def test_other_texts_name_no_conversation(talks: Eventstore) -> None:
    for text in ("", "zzz", "%", "_", "tr%", "0a6c0e03-1f0f", "0a6-c0e03", "Journa", "-"):
        result = talks("messages", "--", text)
        assert (result.code, result.out) == (1, "")
        assert f"no conversation has the id {text!r}" in result.err


def test_a_user_finds_only_what_they_may_see(talks: Eventstore) -> None:
    assert talks("messages", "Jour", "--user", "ana").out == talks("messages", "Journey").out
    assert "no conversation has the id 'Jour'" in talks("messages", "Jour", "--user", "bob").err
    assert "no conversation has the id 'Journey'" in talks("history", "Journey", "--user", "bob").err
    assert "no conversation has the id '0a6c0e03'" in talks("conversation", "0a6c0e03", "--user", "ana").err
    assert "several ids" not in talks("messages", "0a6c0e0", "--user", "ana").err


def test_a_user_reads_what_they_may_see(talks: Eventstore) -> None:
    for command, number in (("conversations", 4), ("messages", 4), ("history", 8)):
        assert len(rows_of(talks, command, "--user", "ana")) == number
        assert rows_of(talks, command, "--user", "bob") == []
    assert [row["messages"] for row in rows_of(talks, "stats", "--by", "role", "--user", "ana")] == [4]
    assert talks("search", "hello", "--user", "bob").err == "nothing matches\n"


def test_lists_of_all_show_the_given_id_of_a_conversation(talks: Eventstore) -> None:
    for command in (("messages",), ("history",), ("search", "hello")):
        assert any("trip-7" in line.split() for line in talks(*command).lines)
        assert str(UUIDS[0]) in talks(*command).out


def test_a_beginning_names_a_key(empty: Eventstore, settings: Settings) -> None:
    async def add() -> list[str]:
        async with EventStore(settings) as store:
            directory = Directory(store)
            for tenant in (store.tenant, "foreign-keys"):
                await directory.add_tenant(tenant)
            keys = [await directory.add_key(store.tenant, "x") for _ in range(40)]  # two begin with one character
            await directory.add_key("foreign-keys", "x")
            return sorted(key.key.id for key in keys)

    ids = asyncio.run(add())
    common = next(one[0] for one, other in pairwise(ids) if one[0] == other[0])
    ambiguous = empty("keys", "revoke", common)
    assert (ambiguous.code, ambiguous.out) == (1, "")
    assert all(each in ambiguous.err for each in [each for each in ids if each.startswith(common)][:5])
    assert empty("keys", "revoke", ids[0][:8]).out == f"key {ids[0]} revoked\n"
    assert [row["state"] for row in rows_of(empty, "keys", "list") if row["id"] == ids[0]] == ["revoked"]
    for text in ("", "ZZZ", "%"):
        assert "has no key" in empty("keys", "revoke", text).err


@pytest.fixture(scope="module")
def long_url(server: DatabaseServer) -> Iterator[str]:
    """A database with forty thousand conversations, half of them of another tenant."""
    name = server.create_database()
    with open_as(server.url(name)) as connection:
        connection.execute(
            "INSERT INTO conversations (id, tenant_id, version, given_id) "
            "SELECT gen_random_uuid(), CASE WHEN p % 2 = 0 THEN 'other' ELSE 'default' END, 1, 'chat-' || p "
            "FROM generate_series(1, 40000) AS p"
        )
    with open_as(server.url(name), "") as owner:
        owner.execute("ANALYZE conversations")
    yield server.url(name)
    server.drop_database(name)


@pytest.mark.parametrize("kind", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("user", ["", "ana"])
def test_a_beginning_is_found_by_ranges_of_indexes(long_url: str, kind: Kind, user: str) -> None:
    parameters: dict[str, Any] = {
        "tenant": "default", "text": "chat-1234", "text_end": "chat-1234\U0010ffff",
        "uuid": UUID("12340000" + "0" * 24), "uuid_end": UUID("1234ffff" + "f" * 24), "limit": 6,
    }  # fmt: skip
    with open_as(long_url, "eventstore_reader") as connection:
        set_scope(connection, "default", user)
        plan = explain(connection, query("agent_manager", "conversations_beginning"), parameters, kind=kind)
    assert "idx_conversations_given_id" in plan.indexes, plan.text
    assert plan.indexes & {"conversations_pkey", "idx_conversations_id"}, plan.text
    assert "Seq Scan" not in plan.kinds, plan.text
    assert plan.buffers < 200, plan.text
    assert (plan.rows > 0) == (user == "")
