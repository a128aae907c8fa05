"""Queries as people type them, and the texts that each of them finds, by relevance and by time alike."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from support.searching import libc_locales, say
from support.servers import memory_folder, open_folder

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from projections import Search

pytestmark = pytest.mark.shared_database

TEXTS: dict[str, str | MessageAdded] = {
    "quotes": "The captain shouted “Overboard!” and ‘Anchors’ and «Babord» and „Backbord“ and ‚Luv‘",
    "dashes": "Monday–Friday, the harbour—our harbour—opens at eight… and closes–never",
    "inverted": "¿Cuándo llega el barco? ¡Mañana!",
    "apostrophe": "The skipper’s dog and the mate's cat don’t get on, l’équipage n'aime pas ça",
    "emoji": "landed🛬safely in Faro ❤️ and 👨‍👩‍👧 slept, 🇵🇹 flags",
    "polish": "ŁÓDŹ leży w Polsce, Zażółć gęślą jaźń",
    "danish": "SMØRREBRØD på Ærø, ÅRSAG og ÆBLE",
    "croatian": "ĐAKOVO i Čakovec",
    "turkish": "İSTANBUL ve Diyarbakır, ışık ILIK",
    "german": "STRASSE heißt auf Schweizerisch gleich, aber die Weißstraße nicht; GROẞ",
    "french": "Le cœur de l’ŒUVRE, NAÏVE déjà-vu",
    "ligature": "eﬃcient ﬂow of the oﬃce",
    "fullwidth": "ＯＰＥＮ ｄｏｏｒ №５",
    "russian": "МОСКВА — столица. Ёлка у Кремля, съёмка",
    "greek": "Ο ΟΔΥΣΣΕΎΣ και ο Σίσυφος έφτασαν",
    "arabic": "السَّلامُ عليكم يا محمد، كتاب جديد",
    "hebrew": "שָׁלוֹם עולם, ספר חדש",
    "thai": "วันนี้อากาศดีมากที่กรุงเทพ",
    "japanese": "来週東京タワーへ行きます。コーヒーとカメラ",
    "chinese": "我想预订北京到上海的火车票",
    "korean": "내일 서울에서 부산까지 기차를 탑니다",
    "hindi": "मुंबई से दिल्ली की ट्रेन",
    "mixed": "Version2を東京officeで確認",
    "options": "run tar --exclude-vcs -x and then ls -F -5",
    "languages": "We port it from C to C++, then C#, F#, then to .NET and ASP.NET with node.js",
    "version": "upgrade from v1.2.3 to v1.2.4-rc1 at 10.0.0.17 or 2001:db8::ff00:42",
    "mail": "write to ana.silva+news@mail.example.org or see https://docs.example.org/a/path_to/page.html?id=42#top",
    "path": r"open /var/log/nginx/error.log or C:\Users\Ana\notes.txt",
    "ids": "order 3f2c9a58-0b1d-4e6f-9c77-12ab34cd56ef at commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "numbers": "The total is 1.234,56 € or 1,234.56 $ on 2026-03-14 at 14:05, that is 50%",
    "identifiers": "call fetchUserProfile, parse_http_header and max-retry-count in XMLHttpRequest2",
    "stop": "We saw The Who in concert, and to be or not to be was the question",
    "train": "The night train to Porto leaves late and the train leaves Porto again",
    "ferry": "The ferry crosses the strait in ninety minutes if the weather is calm",
    "data": MessageAdded(
        role="user",
        parts=[
            {"kind": "data", "data": {"cabin": "panoramic", "berths": 4, "insured": True}},
            {"kind": "data", "data": ["walnut", 7731, {"deck": "upper"}]},
        ],
    ),
    "scalars": MessageAdded(
        role="user", parts=[{"kind": "data", "data": "zinnia"}, {"kind": "data", "data": 90210}, {"data": False}]
    ),
    "file": MessageAdded(
        role="user",
        parts=[{"kind": "file", "file": {"name": "Budget_Final-v2.xlsx", "uri": "s3://vault/reports/Q3Overview.pdf"}}],
    ),
    "metadata": MessageAdded(role="user", content="x", metadata={"campaign": "springtide", "labels": ["vip", 12]}),
    "parts": MessageAdded(role="user", parts=[{"kind": "text", "text": "amber"}, {"kind": "text", "text": "beacon"}]),
}

FINDS: dict[str, str] = {
    # punctuation beside words
    "overboard": "quotes",
    "anchors": "quotes",
    "babord backbord luv": "quotes",
    "“overboard”": "quotes",
    "friday": "dashes",
    "harbour": "dashes",
    "harbour—our": "dashes",
    "eight": "dashes",
    '"eight and closes"': "dashes",
    "cuando": "inverted",
    "mañana": "inverted",
    "skipper": "apostrophe",
    "skipper's": "apostrophe",
    "don't": "apostrophe",
    "don’t": "apostrophe",
    "équipage": "apostrophe",
    "aime": "apostrophe",
    "landed safely": "emoji",
    "🛬": "emoji",
    "❤": "emoji",
    "❤️": "emoji",
    "👨‍👩‍👧": "emoji",
    "🇵🇹": "emoji",
    # letters
    "łódź": "polish",
    "lodz": "polish",
    "ZAŻÓŁĆ": "polish",
    "smørrebrød": "danish",
    "smorrebrod": "danish",
    "årsag": "danish",
    "æble": "danish",
    "aeble": "danish",
    "đakovo": "croatian",
    "čakovec": "croatian",
    "istanbul": "turkish",
    "İstanbul": "turkish",
    "diyarbakir": "turkish",
    "IŞIK": "turkish",
    "ılık": "turkish",
    "straße": "german",
    "strasse": "german",
    "weissstrasse": "german",
    "groß": "german",
    "gross": "german",
    "cœur": "french",
    "coeur": "french",
    "oeuvre": "french",
    "naive": "french",
    "efficient flow": "ligature",
    "office": "ligature mixed",
    "open": "fullwidth path dashes",
    "ｏｐｅｎ door": "fullwidth",
    "Москва": "russian",
    "москва": "russian",
    "елка": "russian",
    "ёлка": "russian",
    "οδυσσεύς": "greek",
    "οδυσσευσ": "greek",
    "σίσυφος": "greek",
    "ΣΙΣΥΦΟΣ": "greek",
    "السلام": "arabic",
    "كتاب": "arabic",
    "שלום": "hebrew",
    "ספר חדש": "hebrew",
    # scripts without spaces
    "อากาศ": "thai",
    "กรุงเทพ": "thai",
    "東京": "japanese mixed",
    "タワー": "japanese",
    "コーヒー": "japanese",
    "北京": "chinese",
    "火车票": "chinese",
    "火车 上海": "chinese",
    '"北京到上海"': "chinese",
    "京北": "",
    "서울": "korean",
    "부산까지": "korean",
    "दिल्ली": "hindi",
    "東京office": "mixed",
    "version2": "mixed",
    # hyphens
    "--exclude-vcs": "options",
    "--exclude": "options",
    "--x": "options metadata",
    "-5": "options",
    "ls -F": "options",
    "tar -ls": "",
    "harbour -monday": "",
    "-harbour": "dashes",
    'porto -"night train"': "",
    # code
    "C++": "languages",
    "c#": "languages",
    "F#": "languages",
    ".NET": "languages",
    "asp.net": "languages",
    "node.js": "languages",
    "v1.2.3": "version",
    "1.2.3": "",
    "v1.2.4-rc1": "version",
    "v1.2.5": "",
    "10.0.0.17": "version",
    "10.0.0.18": "",
    "2001:db8::ff00:42": "version",
    "ana.silva+news@mail.example.org": "mail",
    "example.org": "mail",
    "mail.example.org": "mail",
    "https://docs.example.org/a/path_to/page.html": "mail",
    "page.html": "mail",
    "path_to": "mail",
    "/var/log/nginx/error.log": "path",
    "error.log": "path",
    "nginx": "path",
    r"C:\Users\Ana": "path",
    "notes.txt": "path",
    "3f2c9a58-0b1d-4e6f-9c77-12ab34cd56ef": "ids",
    "3f2c9a58-0b1d-4e6f-9c77-12ab34cd56ee": "",
    "9fceb02d0ae598e95dc970b74767f19372d61af8": "ids",
    "9fceb02*": "ids",
    "1.234,56": "numbers",
    "1,234.56": "numbers",
    "1234.56": "",
    "2026-03-14": "numbers",
    "14:05": "numbers",
    "50%": "numbers",
    "fetchUserProfile": "identifiers",
    "fetchuserprofile": "identifiers",
    "user profile": "identifiers",
    '"fetch user profile"': "identifiers",
    "parse_http_header": "identifiers",
    "http header": "identifiers",
    "retry": "identifiers",
    "max-retry-count": "identifiers",
    "XMLHttpRequest2": "identifiers",
    # phrases
    "the who": "stop",
    '"the who"': "stop",
    '"who the"': "",
    '"to be or not to be"': "stop",
    "to be or not to be": "stop",
    '"train to porto"': "train",
    '"train to"': "train",
    '"train porto"': "",
    '"porto to train"': "",
    '"trains to porto"': "",
    '"leaves porto"': "train",
    '"amber beacon"': "",
    "amber beacon": "parts",
    # prefixes
    "fe*": "ferry identifiers",
    "pa*": "identifiers data mail apostrophe danish",
    "we*": "stop ferry german languages",
    "lea*": "train",
    # files, data and metadata
    "panoramic": "data",
    "cabin:panoramic": "data",
    "walnut 7731": "data",
    "7731": "data",
    "upper deck": "data",
    "insured true": "data",
    "zinnia": "scalars",
    "90210": "scalars",
    "false": "scalars",
    "Budget_Final-v2.xlsx": "file",
    "budget": "file",
    "Q3Overview.pdf": "file",
    "overview": "file",
    "s3://vault/reports": "file",
    "springtide": "metadata",
    "vip": "metadata",
    # relaxed
    "does the night ferry cross the strait of Gibraltar": "ferry",
    "ferry crosses strait tunnel": "ferry",
}
"""Each with the names of the texts, in any order."""


async def fill(store: EventStore) -> dict[UUID, str]:
    """Append the texts; return the names of the events."""
    events = [
        text if isinstance(text, MessageAdded) else MessageAdded(role="user", content=text) for text in TEXTS.values()
    ]
    conversation = await say(store, *events)
    return dict(zip([event.id async for event in store.read(conversation)][1:], TEXTS, strict=True))


async def test_each_query_finds_the_texts_that_a_reader_expects(store: EventStore) -> None:
    names = await fill(store)
    search = Search(store)
    differing = {}
    for query, expected in FINDS.items():
        best = {names[hit.id] for hit in await search.page(query, limit=100)}
        latest = {names[hit.id] for hit in await search.page(query, by="time", limit=100)}
        if not best == latest == set(expected.split()):
            differing[query] = (best, latest)
    assert differing == {}


DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


async def results(server: EmbeddedServer, locale: str) -> object:
    """Return the results of all queries in a new database of a locale."""
    name = f"locale_{uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc LOCALE {}")
    with psycopg.connect(server.superuser_url, autocommit=True) as superuser:
        superuser.execute(create.format(sql.Identifier(name), locale))
    url = server.superuser_url.replace("/flowagents?", f"/{name}?")
    settings = Settings(database_url=url, allow_superuser=True)
    Migrator(url, settings).up()
    async with EventStore(settings) as store:
        names = await fill(store)
        found = {}
        for query in [*FINDS, *(word[:-2] + word[-1] for word in FINDS if word.isalpha() and len(word) > 5)]:
            page = await Search(store).page(query, limit=100)
            found[query] = [(names[hit.id], hit.language, hit.rank, hit.snippet) for hit in page], page.searched
        return found


@pytest.mark.slow
@pytest.mark.any_server
async def test_results_depend_neither_on_the_locale_nor_on_the_version(clean_environment: None) -> None:
    found = {}
    for programs in (None, DEBIAN_15):
        if programs is None or programs.is_dir():
            with open_folder(memory_folder()) as folder, EmbeddedServer(folder / "server", bin_dir=programs) as server:
                for locale in libc_locales():
                    found[programs, locale] = await results(server, locale)
    for key, of_one in found.items():
        assert of_one == found[None, "C"], key
