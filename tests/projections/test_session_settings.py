"""Settings of the server, the database and the login change no result."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from support.servers import DatabaseServer

from eventstore import Append, ConversationCreated, EventStore, MessageAdded, Metadata, NewEvent, Settings, TaskCreated
from eventstore.errors import UnsuitableServer
from projections import Reader, Search, Statistics, catch_up, read_status, rebuild, verify

FIRST, SECOND, THIRD = (UUID(int=number, version=4) for number in (1, 2, 3))
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)

OF_VALUES = {
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "escape_string_warning": "off",
    "array_nulls": "off",
    "client_encoding": "LATIN1",
    "client_min_messages": "error",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
}
OF_STATEMENTS = {
    "search_path": "pg_catalog",
    "transform_null_equals": "on",
    "row_security": "off",
    "gin_fuzzy_search_limit": "1",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "default_text_search_config": "pg_catalog.russian",
    "check_function_bodies": "off",
    "plpgsql.extra_errors": "all",
}
OF_TRANSACTIONS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "synchronous_commit": "off",
}
LIMITS = {
    "lock_timeout": "1ms",
    "statement_timeout": "10s",
    "idle_session_timeout": "50ms",
    "idle_in_transaction_session_timeout": "50ms",
    "transaction_timeout": "10s",
}
OF_THE_PLANNER = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "on",
    "jit_above_cost": "0",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_hashagg": "off",
    "enable_hashjoin": "off",
    "enable_nestloop": "off",
    "enable_sort": "off",
    "enable_material": "off",
    "cursor_tuple_fraction": "0",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
}
HOSTILE = OF_VALUES | OF_STATEMENTS | OF_TRANSACTIONS | LIMITS | OF_THE_PLANNER


def set_all(url: str, settings: dict[str, str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LOAD 'plpgsql'")
        known = {name for (name,) in connection.execute("SELECT lower(name) FROM pg_settings").fetchall()}
        database = sql.Identifier(connection.info.dbname)
        for name, value in settings.items():
            if name in known:
                change = sql.SQL("ALTER DATABASE {} SET {} TO {}")
                values = sql.SQL(", ").join(map(sql.Literal, value.split(", ") if name == "search_path" else [value]))
                connection.execute(change.format(database, sql.SQL(name), values))


def message_at(role: Any, text: str, minutes: int, actor: str = "") -> NewEvent:
    return NewEvent(
        MessageAdded(role=role, content=text),
        actor=actor,
        metadata=Metadata(occurred_at=NOON + timedelta(minutes=minutes)),
    )


async def everything(settings: Settings) -> dict[str, Any]:
    """Return what the store reads of a small log that was just written."""
    async with EventStore(settings) as store:
        await store.append(
            FIRST, [ConversationCreated(name="O'Hara \\ naïve Zürich"), message_at("user", "a train", 0, "ana")]
        )
        await store.append(FIRST, [message_at("assistant", "a \\ train to Zürich, at 10:30", 3)], expected=2)
        several = [
            Append(SECOND, [message_at("user", "trains, please", 60 * 24)]),
            Append(THIRD, [message_at("user", "no", 5)]),
        ]
        await store.append_all(several, user="ana")
        await store.append(THIRD, [TaskCreated(task_id=UUID(int=9, version=4), description="look")], user="ana")
        await catch_up(store)
        await store.append(SECOND, [message_at("assistant", "a train to Lisbon", 60 * 24 + 1)], user="ana")
        await catch_up(store)
        followed = []
        async for event in store.subscribe():
            followed.append((event.conversation_id, event.version, event.content))
            if len(followed) == 7:
                break
        read, numbers, search = Reader(store), Statistics(store), Search(store)
        status = await read_status(store)
        given: dict[str, Any] = {
            "followed": followed,
            "read": [(event.version, event.content, event.timestamp.utcoffset()) async for event in store.read(FIRST)],
            "log": [event.position async for event in store.read_log(since=NOON)],
            "conversations": [(one.id, one.name, one.message_count) for one in (await read.conversations())],
            "messages": [(m.content, m.created_at) for m in await read.messages(FIRST)],
            "tasks": [(task.id, task.description) for task in await read.tasks(THIRD)],
            "as it was": (await read.conversation_at(FIRST, version=2)).messages[0].content,
            "search": [(hit.snippet, hit.created_at) for hit in (await search.page("train")).items],
            "days": [(day.day, day.messages) for day in await numbers.by_day()],
            "response times": [
                (each.key, each.answered, each.median) for each in await numbers.response_times_by_day()
            ],
            "task times": len(await numbers.task_times()),
            "status": [(each.name, each.position) for each in status.projections],
            "verified": [(each.position, each.differences) for each in await verify(store)],
            "rebuilt": [(each.projection, each.differences) for each in await rebuild(store)],
            "verified again": [(each.position, each.differences) for each in await verify(store)],
        }
        return given


@pytest.mark.slow
async def test_settings_of_the_login_change_nothing(
    server: DatabaseServer, database_url: str, superuser_url: str, clean_environment: None
) -> None:
    plain = server.create_database()
    try:
        expected = await everything(Settings(database_url=server.url(plain)))
    finally:
        server.drop_database(plain)
    set_all(superuser_url, HOSTILE)
    given = await everything(Settings(database_url=database_url))
    for what, value in expected.items():
        assert given[what] == value, what


async def test_replicas_triggers_are_refused_at_opening(
    database_url: str, superuser_url: str, clean_environment: None
) -> None:
    set_all(superuser_url, {"session_replication_role": "replica"})
    with pytest.raises(UnsuitableServer, match="RESET session_replication_role"):
        await EventStore(Settings(database_url=database_url)).open()
