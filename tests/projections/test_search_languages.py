"""Texts in a dozen languages, with code and ids: what readers of each of them find in it."""

from __future__ import annotations

import pytest
from support.searching import say

from eventstore import EventStore
from projections import Search

pytestmark = pytest.mark.shared_database

TEXTS = {
    "pt": "Bom dia! Preciso de três bilhetes para o comboio das 7h30 de Coimbra a Évora, com lugares à janela.",
    "pt2": "As reuniões dos capitães foram canceladas; os pães e os corações ficaram nas mãos das irmãs.",
    "en": "Our subscriptions renew automatically on the first of the month unless you've cancelled them beforehand.",
    "en2": "He bought two mice, three geese and a mother-in-law's tongue; the children's feet were freezing.",
    "es": "Mañana recogeremos los pingüinos del zoológico; los niños están muy contentos con el señor Núñez.",
    "fr": "L’hôtel n’avait plus de chambres : où aller ? Les élèves reçurent des châteaux, c’est-à-dire rien.",
    "de": "Die Fußgängerübergänge in Düsseldorf wurden gestern überprüft; Straßenbahnhaltestellen folgen morgen.",
    "it": "Perché la città è così affollata? Gli studenti universitari hanno perso l'autobus delle nove.",
    "ru": "Поезда из Санкт-Петербурга прибывают вовремя; пассажиры довольны новыми вагонами, ещё и чаем.",
    "el": "Τα πλοία φεύγουν από τον Πειραιά κάθε πρωί.",
    "ja": "明日の会議は新宿駅の近くで午後三時から始まります。資料はPDFで送ってください。",
    "zh": "請把發票寄到臺北市信義區，謝謝。价格是￥199。",
    "th": "ผมอยากจองตั๋วเครื่องบินไปเชียงใหม่วันศุกร์หน้า",
    "ar": "أريد حجز غرفة في الفندق لليلتين، شكراً جزيلاً",
    "ko": "회의실을 예약하고 싶습니다. 다음 주 화요일 오후입니다.",
    "code": "def parse_invoice_total(rawText: str) -> Decimal:  # raises ValueError; see InvoiceParser.parseAll()",
    "shell": "git rebase -i HEAD~3 && git push --force-with-lease origin feature/JIRA-4711_fix",
    "sql": "SELECT count(*) FROM orders WHERE total_cents >= 19900 AND created_at::date = '2026-02-28';",
    "json": '{"orderId": "A-10023-XZ", "status": "SHIPPED", "trackingUrl": "https://track.example.com/t/1Z999AA10123456784"}',
    "ids": "ticket INC0012345, ARN arn:aws:s3:::my-bucket/photos/2026, MAC 00:1B:44:11:3A:B7, ISBN 978-3-16-148410-0",
    "hash": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 matches @user_42 #release-notes",
    "emoji": "🚀🚀 launch went well!!! 👩🏽‍🚀 says hi 🤷‍♂️ temp -12°C → +5°C",
    "money": "It costs $1,299.00 (≈ €1.199,90), i.e. 15% off; call +351 912 345 678 after 18:00.",
    "acronym": "The U.S.A. team and the N.A.S.A. engineers met Dr. O'Neill at 5 p.m. about the R&D budget, AT&T too.",
    "log": "2026-11-30T02:14:35.123Z ERROR [worker-3] com.acme.Foo$Bar: NullPointerException: Foo.java:42 (EPIPE)",
    "html": '<p class="intro">Welcome<br/>back, <b>Maria</b>! **bold**, `npm run build:prod`, [docs](/x?lang=en#top)',
    "cpp": 'if (user.isActive && count>=10) { map.get("api-key") ?? 0xFF; } // TODO: fix->later std::vector<int> v;',
    "vi": "Tôi muốn đặt phòng ở Hà Nội vào thứ Sáu, cafe\u0301 sữa",
    "fa": "می‌خواهم یک بلیط به تهران بخرم",
    "phrase": "time flies like an arrow, but fruit flies like a banana",
    "phrase2": "an arrow flies in time; the banana likes fruit",
}

FINDS = {
    # forms of words, with and without accents
    "bilhete janela": "pt",
    "evora": "pt",
    "7h30": "pt",
    "reunião capitão": "pt2",
    "pão": "pt2",
    "mão": "pt2",
    "coracao irmas": "pt2",
    "subscription": "en",
    "renewed automatic": "en",
    "cancelling": "en",
    "you've": "en",
    "youve": "",
    "children": "en2",
    "mother-in-law": "en2",
    "mother": "en2",
    "foot": "",
    "pinguino": "es",
    "nunez": "es",
    "niño contento": "es",
    "señores": "es",
    "hotel": "fr",
    "chambre": "fr",
    "château": "fr",
    "c'est-à-dire": "fr",
    "eleve": "fr",
    "fussgängerübergang": "de",
    "fussgangerubergange": "de",
    "dusseldorf": "de",
    "Strassenbahnhaltestelle": "de",
    "citta": "it",
    "studente universitario": "it",
    "autobus": "it",
    "поезд": "ru",
    "пассажир": "ru",
    "новый вагон": "ru",
    "πλοίο": "el",
    "πλοια": "el",
    "петербург": "ru",
    "еще": "ru",
    "САНКТ-ПЕТЕРБУРГА": "ru",
    # scripts without spaces
    "会議": "ja",
    "新宿駅": "ja",
    "宿新": "",
    "pdf": "ja",
    "午後三時": "ja",
    "發票": "zh",
    "臺北": "zh",
    "价格": "zh",
    "199": "zh money",  # a separator of thousands is punctuation
    "เชียงใหม่": "th",
    "ตั๋วเครื่องบิน": "th",
    "غرفة": "ar",
    "شكرا": "ar",
    "회의실": "ko",
    "화요일": "ko",
    "예약": "ko",
    # code and ids
    "parse_invoice_total": "code",
    "invoice total": "code",
    "rawText": "code",
    "raw": "code",
    "ValueError": "code",
    "InvoiceParser.parseAll()": "code",
    "parseAll": "code",
    "--force-with-lease": "shell",
    "HEAD~3": "shell",
    "JIRA-4711": "shell",
    "4711": "shell",
    "feature/JIRA-4711_fix": "shell",
    "count(*)": "cpp sql",
    "total_cents": "sql",
    "total": "code sql",
    "19900": "sql",
    "2026-02-28": "sql",
    "A-10023-XZ": "json",
    "orderId": "json",
    "shipped": "json",
    "1Z999AA10123456784": "json",
    "track.example.com": "json",
    "INC0012345": "ids",
    "inc001*": "ids",
    "arn:aws:s3:::my-bucket/photos": "ids",
    "my-bucket": "ids",
    "00:1B:44:11:3A:B7": "ids",
    "978-3-16-148410-0": "ids",
    "978-3-16-148410-1": "",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": "hash",
    "e3b0c442*": "hash",
    "@user_42": "hash",
    "user_42": "hash",
    "#release-notes": "hash",
    # symbols, numbers and abbreviations
    "🚀": "emoji",
    "🤷": "emoji",
    "👩🏽‍🚀": "emoji",
    "-12°C": "emoji",
    "$1,299.00": "money",
    "1,299.00": "money",
    "€1.199,90": "money",
    "15%": "money",
    "912 345 678": "money",
    "+351 912 345 678": "money",
    "18:00": "money",
    "N.A.S.A.": "acronym",
    "O'Neill": "acronym",
    "R&D": "acronym",
    "AT&T": "acronym",
    "2026-11-30": "log",
    "02:14:35": "log",
    "2026-11-30T02:14:35.123Z": "log",
    "null pointer": "log",
    "Foo.java:42": "log",
    "epipe": "log",
    # what markup and operators join
    "back maria": "html",
    "bold": "html",
    "build:prod": "html",
    "lang=en": "html",
    "isActive": "cpp",
    "api-key": "cpp",
    "0xFF": "cpp",
    "std::vector": "cpp",
    "fix later": "cpp",
    "ha noi": "vi",
    "đặt phòng": "vi",
    "café": "vi",
    "می‌خواهم": "fa",
    # phrases and exclusions
    '"time flies"': "phrase",
    '"flies like a banana"': "phrase",
    '"like an arrow"': "phrase",
    '"an arrow flies"': "phrase2",
    "flies banana": "phrase phrase2",
    "flies -time": "",
    'flies -"time flies"': "phrase2",
    "arrow -fruit": "",
    "banana or hotel": "fr phrase phrase2",
    # prefixes
    "subscr*": "en",
    "düssel*": "de",
    "пассаж*": "ru",
    "chât*": "fr",
    "aut*": "en it",
}
"""Each with the names of the texts, in any order."""

MISSPELT = {
    "subscriptons": "en",
    "automaticaly": "en",
    "bilehtes": "pt",
    "pinguinso": "es",
    "chateuax": "fr",
    "universitarri": "it",
    "пасажиры": "ru",
    "düseldorf": "de",
    "banena": "phrase",
    "trakingurl": "json",
}
"""Each with one of the texts that it finds."""


async def test_readers_of_each_language_find_their_texts(store: EventStore) -> None:
    conversation = await say(store, *TEXTS.values())
    names = dict(zip([event.id async for event in store.read(conversation)][1:], TEXTS, strict=True))
    search = Search(store)
    differing = {}
    for query, expected in FINDS.items():
        page = await search.page(query, limit=100)
        found = {names[hit.id] for hit in page} if page.searched == query else set()
        if found != set(expected.split()):
            differing[query] = found
    for query, name in MISSPELT.items():
        page = await search.page(query)
        if page.searched == query or name not in {names[hit.id] for hit in page}:
            differing[query] = {page.searched, *(names[hit.id] for hit in page)}
    assert differing == {}
