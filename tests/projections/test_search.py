"""Searching: tenants, filters, order, pages while rows arrive, and arbitrary texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.searching import SEARCH, found, say

from eventstore import (
    ConversationCreated,
    ConversationDeleted,
    ConversationReactivated,
    EventData,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)
from eventstore.errors import InputError
from projections import Page, Search, all_items, catch_up, read_parked, rebuild, wait_for
from projections.search import HitKind

pytestmark = pytest.mark.shared_database

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(minute: int, text: str, **more: Any) -> NewEvent:
    return NewEvent(
        MessageAdded(role=more.pop("role", "user"), content=text),
        metadata=Metadata(occurred_at=NOON + timedelta(minutes=minute)),
        **more,
    )


async def test_tenants_find_nothing_of_each_other(store: EventStore) -> None:
    for tenant in ("a", "b", "it's =a\\ odd"):
        await say(store, f"the harbour of {tenant} and nobody else", tenant=tenant)
    assert await found(store, "harbour", tenant="a") == ["the harbour of a and nobody else"]
    assert await found(store, "harbour", tenant="it's =a\\ odd") == ["the harbour of it's =a\\ odd and nobody else"]
    assert await found(store, "harbour") == []
    assert await found(store, "harbuor", tenant="c") == []
    secret = await say(store, "the passphrase is xylophone", tenant="b")
    assert await found(store, "xylophone", tenant="a", conversation=secret) == []
    # The tenant does not even learn that a word exists elsewhere.
    assert (await Search(store, "a").page("xilophone")).searched == "xilophone"
    assert (await Search(store, "b").page("xilophone")).searched == "xylophone"


async def test_filters_narrow_what_is_found(store: EventStore) -> None:
    first, second = uuid4(), uuid4()
    await store.append(first, [at(1, "boat one", actor="ana"), at(2, "boat two", actor="bot", role="assistant")])
    await store.append(second, [at(3, "boat three", actor="ana"), at(4, "boat four", actor="rui", role="system")])
    await catch_up(store, SEARCH)

    async def which(**filters: Any) -> list[str]:
        latest = await found(store, "boats", by="time", **filters)
        assert sorted(latest) == sorted(await found(store, "boats", **filters))
        return [text.split()[1] for text in latest]

    assert await which() == ["four", "three", "two", "one"]
    assert await which(actor="ana") == ["three", "one"]
    assert await which(role="assistant") == ["two"]
    assert await which(role="tool") == []
    assert await which(conversation=first) == ["two", "one"]
    assert await which(conversation=str(second), actor="ana") == ["three"]
    assert await which(since=NOON + timedelta(minutes=2)) == ["four", "three", "two"]
    assert await which(until=NOON + timedelta(minutes=2)) == ["one"]
    assert await which(since=NOON + timedelta(minutes=2), until=NOON + timedelta(minutes=4), actor="ana") == ["three"]
    assert await which(language="en") == ["four", "three", "two", "one"]


async def test_results_are_ordered_by_relevance_or_by_time(store: EventStore) -> None:
    long = "a lighthouse among others: " + " ".join(f"word{number}" for number in range(50))
    await store.append(uuid4(), [at(2, "lighthouse keeper of the lighthouse"), at(9, long), at(5, "the lighthouse")])
    await catch_up(store, SEARCH)
    assert [text[:6] for text in await found(store, "lighthouse")] == ["lighth", "the li", "a ligh"]
    assert [text[:6] for text in await found(store, "lighthouse", by="time")] == ["a ligh", "the li", "lighth"]


async def test_deleted_conversations_are_not_searched(store: EventStore) -> None:
    conversation = await say(store, "the walrus")
    assert len(await found(store, "walrus")) == 1
    await store.append(conversation, [ConversationDeleted()])
    await catch_up(store, SEARCH)
    assert await found(store, "walrus") == await found(store, "walrus", by="time") == []
    assert await found(store, "walrus", conversation=conversation) == []
    await store.append(conversation, [ConversationReactivated()])
    await catch_up(store, SEARCH)
    assert len(await found(store, "walrus")) == 1


@pytest.mark.parametrize("by", ["relevance", "time"])
@pytest.mark.parametrize("query", ["pebble", "peble"])
async def test_pages_are_stable_while_rows_arrive(store: EventStore, by: Any, query: str) -> None:
    conversation = uuid4()
    await store.append(conversation, [at(n % 7, f"{'pebble ' * (n % 3 + 1)} number {n}") for n in range(45)])
    await catch_up(store, SEARCH)
    whole = (await Search(store).page(query, by=by, limit=100)).items
    assert len(whole) == 45
    taken: list[UUID] = []
    after = None
    while True:
        page = await Search(store).page(query, by=by, limit=10, after=after)
        assert page.searched == "pebble"
        taken += [hit.id for hit in page.items]
        await store.append(conversation, [at(30, "pebble pebble pebble pebble")])
        await catch_up(store, SEARCH)
        if page.next is None:
            break
        after = page.next
    assert taken == [hit.id for hit in whole]


@given(
    st.sampled_from(["relevance", "time"]),
    st.integers(1, 7),
    st.lists(st.integers(0, 4), min_size=3, max_size=30),
    st.lists(st.sampled_from(["append", "catch up", "rebuild", "describe", "delete"]), max_size=12),
)
@examples(12)
async def test_pages_lose_and_repeat_nothing_whatever_happens_between_them(
    store: EventStore, by: Any, limit: int, minutes: list[int], steps: list[str]
) -> None:
    tenant, conversation, other, task = str(uuid4()), uuid4(), uuid4(), uuid4()
    search = Search(store, tenant)

    async def append(conversation: UUID, *events: NewEvent | EventData) -> None:
        await store.append(conversation, list(events), tenant=tenant)

    await append(conversation, *(at(minute, "pebble " * (minute + 1)) for minute in minutes))
    await append(other, at(2, "pebble"), TaskCreated(task_id=task, description="pebble"))
    await catch_up(store, SEARCH)
    await append(conversation, *(at(minute, "pebble late") for minute in minutes))  # which the next step may apply
    whole = await search.page("pebble", by=by, limit=1000)
    assert len(whole) == len(minutes) + 2
    seen = []
    after = None
    for step in (*steps, *["catch up"] * 100):
        page = await search.page("pebble", by=by, limit=limit, after=after)
        seen += [(hit.conversation_id, hit.version) for hit in page]
        if (after := page.next) is None:
            break
        match step:
            case "append":
                await append(conversation, at(2, "pebble pebble"), at(9, "pebble"), at(-1, "pebble"))
            case "describe":
                await append(other, TaskDescribed(task_id=task, description="pebble again"))
            case "delete":
                await append(other, ConversationDeleted())
                await append(other, ConversationReactivated())
            case "rebuild":
                await rebuild(store, SEARCH)
            case "catch up":
                await catch_up(store, SEARCH)
    assert len(seen) == len(set(seen))
    replaced = {(other, 2)}
    assert {(hit.conversation_id, hit.version) for hit in whole} - replaced <= set(seen)


async def test_a_cursor_is_valid_for_its_own_search_only(store: EventStore) -> None:
    await say(store, "stone one", "stone two")
    page = await Search(store).page("stone", limit=1)
    assert page.next is not None
    for query, filters in (("rock", {}), ("stone", {"by": "time"}), ("stone", {"role": "user"})):
        with pytest.raises(InputError, match="cursor does not belong to this search"):
            await Search(store).page(query, after=page.next, **filters)  # type: ignore[arg-type]
    for cursor in ("", "x", "ä", "WzEsMiwzLDQsNV0=", page.next[:-8]):
        with pytest.raises(InputError, match="cursor does not belong"):
            await Search(store).page("stone", after=cursor)
    with pytest.raises(InputError, match="cursor does not belong"):
        await Search(store, "other").page("stone", after=page.next)


async def test_unknown_filters_are_refused(store: EventStore) -> None:
    search = Search(store)
    for filters, reason in (
        ({"by": "luck"}, "by: 'luck' is unknown: choose among relevance, time"),
        ({"kind": "memo"}, "kind: 'memo' is unknown"),
        ({"role": "agent"}, "role: 'agent' is unknown"),
        ({"limit": 0}, "limit: 0 is not a number from 1 to 1000"),
        ({"language": "klingon"}, "language: 'klingon' is not a language that can be searched"),
        ({"since": datetime(2026, 1, 1)}, "not a datetime with a time zone"),
        ({"conversation": "trip 7"}, "conversation"),
    ):
        with pytest.raises(InputError, match=reason):
            await search.page("boat", **filters)  # type: ignore[arg-type]


ODD = st.text(
    st.sampled_from(
        "abcção -\"'*:&|!()<>\\/@._=\n\t\0\ud800\U0001f600é\u0301ßİıﬁ漢字한०٣´`~^%$#\x01\x02\x03\x7f\u200d\u202e"
    )
)


@given(
    st.text()
    | ODD
    | st.lists(st.sampled_from(["or", "-", '"', "*", "the", "não", "a*", "-b"]), max_size=9).map(" ".join)
)
@examples(40)
async def test_no_query_raises_an_error(store: EventStore, query: str) -> None:
    if not await found(store, "constant", tenant="odd"):
        await say(store, "a constant text, não mais", tenant="odd")
    for filters in ({}, {"by": "time", "language": "pt"}):
        await Search(store, "odd").page(query, **filters)  # type: ignore[arg-type]


@given(
    st.lists(
        (st.text() | ODD).map(lambda text: text.translate({0: " "}).encode("utf-8", "replace").decode()), max_size=5
    )
)
@examples(25)
async def test_every_text_is_indexed_and_found(store: EventStore, texts: list[str]) -> None:
    tenant = str(uuid4())
    await say(
        store,
        *(f"{text} marker {text}" for text in texts),
        *(MessageAdded(role="user", parts=[text, {"text": text, "data": {text: text}}]) for text in texts),
        *(MessageAdded(role="user", extra={"tool_calls": [{"function": {"arguments": text}}, text]}) for text in texts),
        tenant=tenant,
    )
    hits = await found(store, "marker", tenant=tenant, limit=100)
    assert len(hits) == len(texts)
    assert all("marker" in hit for hit in hits)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 900_000,
        " ".join(f"w{n:x}" for n in range(120_000)),
        "é" * 400_000,
        "漢 " * 200_000,
        "<a href='x'>" * 60_000,
        "a@b.c/d-e " * 80_000,
        "\\u00e3" * 100_000,
        "( " * 400_000,
    ],
    ids=["one word", "many words", "accents", "characters", "tags", "addresses", "escapes", "brackets"],
)
async def test_a_part_of_an_enormous_message_is_found(store: EventStore, text: str) -> None:
    await say(store, f"beginning {text}", MessageAdded(role="tool", extra={"tool_calls": [{"name": "enormous"}]}))
    assert [hit[:9] for hit in await found(store, "beginning")] == ["beginning"]
    assert len(await found(store, "enormous")) == 1


def _words(alphabet: int, number: int) -> str:
    """Distinct words of two characters each, of the letters from a code point on."""
    return " ".join(chr(alphabet + n // 200) + chr(alphabet + n % 200) for n in range(number))


HOSTILE = {
    "characters of four bytes": _words(0x20000, 33_000),
    "characters of three bytes": _words(0x4E00, 33_000),
    "single letters": " ".join(chr(0x20000 + n) for n in range(42_000)),
    "Portuguese endings": " ".join(chr(0x4E00 + n) + "cao" for n in range(20_000)),
    "one word of four bytes": "\U00020000" * 100_000,
    "emoji": "\U0001f600" * 100_000,
    "combining": "e" + "\u0301" * 99_000,
    "letters and combining": "".join(chr(0x4E00 + n % 20_000) + "\u0323\u0307 " for n in range(25_000)),
    "growing letters": "".join(f"İ{n} Ⱥ{n} " for n in range(10_000)),
    "ligatures": "ﬃ ﷺ " * 25_000,
    "digits and letters": " ".join(f"{n}٣{n}漢" for n in range(12_000)),
}


@pytest.mark.slow
async def test_what_does_not_fit_is_cut_and_the_projection_goes_on(store: EventStore) -> None:
    task = uuid4()
    for number, (name, text) in enumerate(HOSTILE.items()):
        marked = f"beginning {text}"
        if number % 2:
            events: list[EventData] = [
                MessageAdded(role="user", parts=[{"text": marked}, {"text": text}]),
                TaskCreated(task_id=task),
                TaskArtifactAdded(task_id=task, artifact_id=name, parts=[{"text": marked}]),
            ]
        else:
            events = [
                MessageAdded(role="user", content=marked),
                TaskCreated(task_id=task, description=marked),
            ]
        events.append(MessageAdded(role="user", content="the end"))
        await store.append(uuid4(), events, actor=text[:250], tenant="ü" * 255)
    other = await store.append(uuid4(), [MessageAdded(role="user", content="somebody else's lighthouse")])
    await catch_up(store, SEARCH)
    assert await read_parked(store) == []
    await wait_for(store, other.position, projections=SEARCH, timeout=0)
    assert len(await found(store, "lighthouse")) == 1
    search = Search(store, "ü" * 255)
    hits = (await search.page("beginning", limit=100)).items
    assert len(hits) == 2 * len(HOSTILE)
    assert all("beginning" in hit.snippet for hit in hits)
    # Words well beyond the first 100,000 bytes are found.
    word = HOSTILE["characters of four bytes"].split()[20_000]
    assert len((await search.page(word)).items) == 2
    for text in HOSTILE.values():
        for query in (text[:1000], f'"{text[:900]}"', f"{text[:40].split()[0]}*", text[-30:]):
            await search.page(query)


async def test_results_come_in_pages_like_any_list_and_each_kind_is_a_filter(store: EventStore) -> None:
    conversation, task = uuid4(), uuid4()
    parts = [{"kind": "text", "text": "a lantern"}]
    events = [
        ConversationCreated(name="lantern"),
        MessageAdded(role="user", content="a lantern"),
        TaskCreated(task_id=task, description="a lantern"),
        TaskArtifactAdded(task_id=task, artifact_id="a", parts=parts),
        TaskStatusChanged(task_id=task, status="completed", message={"role": "agent", "parts": parts}),
    ]
    await store.append(conversation, events)
    await catch_up(store, SEARCH)
    search = Search(store)
    page = await search.page("lantern", by="time", limit=2)
    assert isinstance(page, Page)
    assert (page.items, len(page), page.searched) == (list(page), 2, "lantern")
    hits = [hit async for hit in all_items(search.page, "lantern", by="time", limit=2)]
    assert hits[:2] == page
    assert {hit.kind for hit in hits} == set(get_args(HitKind))
    for hit in hits:
        assert isinstance(hit.snippet, str)
        assert hit in (await search.page("lantern", by="time", kind=hit.kind)).items


async def test_sql_can_search_only_through_the_function(store: EventStore, database_url: str) -> None:
    await say(store, "olive trees")
    rows = await store.tables(store.caller()).fetch(
        "SELECT kind, snippet FROM search_for('olives', %s, only_role => 'user')", (store.tenant,)
    )
    assert rows == [("message", "«olive» trees")]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE eventstore_reader")
        for name in ("search_latest", "search_matches", "search_corrections"):
            [allowed] = connection.execute(
                "SELECT has_function_privilege(p.oid, 'EXECUTE') FROM pg_proc p WHERE p.proname = %s", [name]
            ).fetchall()
            assert allowed == (False,)
        [[owner]] = connection.execute(
            "SELECT pg_get_userbyid(p.proowner) FROM pg_proc p WHERE p.proname = 'search_for'"
        ).fetchall()
        assert owner == "eventstore_search"
