"""The words of a text, whatever the locale of the server: punctuation, case, scripts without spaces, code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from support.searching import SEARCH, found, libc_locales, say
from support.servers import DatabaseServer

from eventstore import ConversationRenamed, EventStore, MessageAdded, Metadata, NewEvent, Settings
from eventstore.database.migrate import Migrator
from projections import Search, catch_up

pytestmark = pytest.mark.shared_database

FINDS = {
    # punctuation and emoji beside a word
    "He said “tomorrow” and «never»…": ["tomorrow", "never", '"said tomorrow and never"'],
    "¿Dónde está? ¡Aquí!": ["donde", "aquí"],
    "a dash—between two words – or three’s": ["dash", "between", "three"],
    "great🎉news": ["great", "news", "🎉"],
    "thumbs up 👍🏽": ["👍", "thumbs"],
    # capital letters beyond ASCII
    "Łódź and ŁUKASZ": ["łódź", "lodz", "łukasz", "Lukasz"],
    "ØRSTED and ÅRHUS": ["ørsted", "orsted", "århus", "aarhus or arhus"],
    "ĐORĐE": ["đorđe", "dorde"],
    "МОСКВА не сразу строилась": ["Москва", "москва", "МОСКВА", '"москва не"'],
    "ΑΘΉΝΑΣ": ["αθήνας", "αθηνας"],
    "ԵՐԵՎԱՆ": ["երևան or երեվան"],
    # compatibility characters
    "ﬁnancial ｆｕｌｌ width": ["financial", "full width"],
    "x² and ½": ["x2"],
    # scripts without spaces between words
    "私は東京都に住んでいます": ["東京", "東京都", "京都", "東", "住んで", '"東京都に"'],
    "ฉันชอบกินข้าวผัด": ["ข้าว", "กินข้าว"],
    "नमस्ते दुनिया": ["नमस्ते", "दुनिया"],
    "서울에서 만나요": ["서울", "만나요"],
    "iPhone的价格": ["iphone", "价格"],
    "٣ apples": ["3 apples"],
    # stop words alone
    "the who": ["the who", '"the who"'],
    # code
    "written in C++ and C#": ["c++", "C#", "written"],
    "call getUserName or HTTPServer": ["getUserName", "username or user", "name", "server", "getusername"],
    "snake_case_name": ["snake", "case", "snake_case_name"],
    "run it with --help or -F": ["--help", "-F", "run --help"],
    "minus -5 degrees": ["-5", "minus -5"],
    "an ox ate": ["ox", "ox*", "at*"],
    "at 2026-11-30T02:14:35.123Z": ["2026-11-30", "02:14:35", "2026-11-30T02:14:35.123Z", "123"],
    # stems of words in an unknown language
    "НОВЫЙ чай, новые поезда": ["новый", "Новая", "поезд", "ЧАЙ"],
    "os órgãos dos irmãos": ["órgão", "orgao", "irmão"],
}


@pytest.mark.parametrize("text", FINDS)
async def test_a_text_is_found_by_its_words(store: EventStore, text: str) -> None:
    await say(store, text, "something else entirely")
    missing = [query for query in FINDS[text] if len(await found(store, query)) != 1]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("take the train at noon", '"train to"'),
        ("one two", '"two one"'),
        ("uno dos xyz", '"xyz uno"'),
        ("train and to", '"train to"'),
        ("trains to Rome", '"train to"'),
        ("東京", "京東"),
        ("C++ only", "c#"),
        ("great news", "🎉"),
        ("ls it", "ls -it"),
    ],
)
async def test_a_phrase_is_those_words_in_that_order(store: EventStore, text: str, query: str) -> None:
    await say(store, text)
    assert await found(store, query) == []


async def test_a_phrase_contains_its_stop_words(store: EventStore) -> None:
    await say(store, "take the train to Lisbon", "the train at noon")
    assert await found(store, '"train to"') == ["take the train to Lisbon"]


@pytest.mark.parametrize("query", ["-5", "--force", "-F", "-train", '-"train to"', "ls -F"])
async def test_nothing_is_excluded_if_nothing_is_searched_for(store: EventStore, query: str) -> None:
    await say(store, "ls -F --force 5: the train to Lisbon", "unrelated")
    assert len(await found(store, query)) == 1


async def test_what_is_shown_is_marked(store: EventStore) -> None:
    await say(
        store,
        "私は東京都に住んでいます",
        "the best language is C++ of course",
        "party 🎉 tonight",
        "She said “Tomorrow” twice: tomorrow!",
        "take the train to Lisbon, or another train",
    )

    async def marked(query: str) -> str:
        [hit] = (await Search(store).page(query, marks=("[", "]"))).items
        return hit.snippet

    assert await marked("東京") == "私は[東京]都に住んでいます"
    assert await marked("c++") == "the best language is [C++] of course"
    assert await marked("🎉") == "party [🎉] tonight"
    assert await marked("tomorrow") == "She said “[Tomorrow]” twice: [tomorrow]!"
    assert await marked('"train to"') == "take the [train to] Lisbon, or another train"
    assert await marked("lis*") == "take the train to [Lisbon], or another train"


async def test_names_files_data_and_metadata_are_found(store: EventStore) -> None:
    conversation = await say(
        store,
        MessageAdded(role="user", parts=[{"kind": "data", "data": "tangerine"}, {"kind": "data", "data": 8472}]),
        MessageAdded(role="user", parts=[{"kind": "file", "file": {"uri": "https://x.example/quarterly-report.pdf"}}]),
        MessageAdded(role="user", content="x", metadata={"topic": "billing"}),
        MessageAdded(role="user", parts=[{"type": "file", "mediaType": "image/png", "data": "aGlkZGVu"}]),
    )
    await store.append(conversation, [ConversationRenamed(name="Planning a wedding")])
    await catch_up(store, SEARCH)
    search = Search(store)

    async def versions(query: str, **filters: Any) -> list[int]:
        return [hit.version for hit in (await search.page(query, **filters)).items]

    assert await versions("tangerine") == await versions("8472") == [2]
    assert await versions("quarterly-report") == [3]
    assert await versions("billing") == [4]
    assert await versions("aGlkZGVu") == []
    assert await versions("wedding") == await versions("wedding", kind="conversation") == [6]
    assert await versions("wedding", kind="message") == await versions("wedding", kind="task") == []
    [hit] = (await search.page("wedding")).items
    assert (hit.kind, hit.id, hit.snippet) == ("conversation", conversation, "Planning a «wedding»")
    await store.append(conversation, [ConversationRenamed(name="Draft"), ConversationRenamed(name="A divorce")])
    await catch_up(store, SEARCH)
    assert await versions("wedding or draft") == []
    assert await versions("divorce") == [8]


async def test_a_long_question_finds_what_has_most_of_its_words(store: EventStore) -> None:
    await say(store, "the ferry from Calais to Dover takes ninety minutes", "a ferry", "Dover castle")
    page = await Search(store).page("how long takes the night ferry between Calais and Dover?", marks=("", ""))
    assert [hit.snippet[:24] for hit in page.items] == ["the ferry from Calais to"]
    assert page.searched != "how long takes the night ferry between Calais and Dover?"
    assert (await Search(store).page(page.searched, marks=("", ""))).items == page.items
    assert (await Search(store).page("night ferry boarding")).items == []
    assert (await Search(store).page("ferry zzzzz")).items == []


async def test_pages_by_relevance_lose_nothing_that_is_applied_in_the_meantime(store: EventStore) -> None:
    conversation = uuid4()
    await store.append(conversation, [dated(n, "pebble " * (n % 5 + 1)) for n in range(60)])
    await catch_up(store, SEARCH)
    search = Search(store)
    seen: list[UUID] = []
    cursor = None
    for number in range(100):
        page = await search.page("pebble", limit=5, after=cursor)
        seen += [hit.id for hit in page.items]
        # Later and earlier ones, and ones dated within the period of the first page.
        await store.append(
            conversation, [dated(90 + number, "pebble " * 9), dated(-number - 1, "pebble"), dated(30, "pebble")]
        )
        await catch_up(store, SEARCH)
        if (cursor := page.next) is None:
            break
    events = [event async for event in store.read(conversation, limit=60)]
    assert set(seen) >= {event.id for event in events}
    assert len(seen) == len(set(seen))


def dated(minute: int, text: str) -> NewEvent:
    time = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(minutes=minute)
    return NewEvent(MessageAdded(role="user", content=text), metadata=Metadata(occurred_at=time))


LETTERS = "AÀÆĄŁØĐßẞÞŒƏΑΩςЖЁҐԱՖאبگЀ東あア한กखதಕ٣๓🎉“”«»—–¿¡…·°№ª²ﬁＡİı"

WORDS = """
SELECT n.text, to_tsvector('pg_catalog.simple', search_words(n.text))::text,
       search_document(search_words(n.text), 'und', '{}')::text, search_query(n.text, 'und')::text
  FROM unnest(%s::text[]) AS n (text)
"""


def words_in(server: DatabaseServer, locale: str, texts: list[str]) -> list[tuple[str, ...]]:
    """Return the words of texts in a new database of a locale."""
    name = f"locale_{uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE {}")
    with psycopg.connect(server.superuser_url_of("postgres"), autocommit=True) as superuser:
        superuser.execute(create.format(sql.Identifier(name), locale))
    try:
        url = server.superuser_url_of(name)
        Migrator(url, Settings(database_url=url, allow_superuser=True)).up()
        with psycopg.connect(url) as connection:
            return connection.execute(WORDS, (texts,)).fetchall()
    finally:
        server.drop_database(name)


def test_words_do_not_depend_on_the_locale(server: DatabaseServer) -> None:
    texts = [*FINDS, *(query for queries in FINDS.values() for query in queries)]
    texts += [f"x{letter}y {letter}z {letter}" for letter in LETTERS]
    found = {locale: words_in(server, locale, texts) for locale in libc_locales()}
    if len(found) < 2:
        pytest.skip(f"the machine has no locale but {list(found)}")
    for locale, words in found.items():
        assert words == found["C"], locale
