"""Snippets: what is marked, where they begin and end, and how long they are."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples
from support.searching import say

from eventstore import EventStore
from projections import Search

pytestmark = pytest.mark.shared_database


async def marked(store: EventStore, query: str) -> str:
    [hit] = await Search(store).page(query, marks=("[", "]"))
    return hit.snippet


MARKED = {
    "call fetchUserProfile for a USER or XMLHttpRequest": {
        "profile": "call fetchUser[Profile] for a USER or XMLHttpRequest",
        "user": "call fetch[User]Profile for a [USER] or XMLHttpRequest",
        "fetchuserprofile": "call [fetchUserProfile] for a USER or XMLHttpRequest",
        "http": "call fetchUserProfile for a USER or XML[Http]Request",
    },
    "the snake_case_name of A-77": {
        "case": "the snake_[case]_name of A-77",
        "snake_case_name": "the [snake]_[case]_[name] of A-77",
        "a-77": "the snake_case_name of [A]-[77]",
    },
    "GROẞE Straße, cœur, Ærø": {
        "strasse": "GROẞE [Straße], cœur, Ærø",
        "große": "[GROẞE] Straße, cœur, Ærø",
        "coeur aero": "GROẞE Straße, [cœur], [Ærø]",
    },
    "שָׁלוֹם עולם": {"שלום": "[שָׁלוֹם] עולם"},
    "السَّلامُ عليكم": {"السلام": "[السَّلامُ] عليكم"},
    "soft\u00adhyphen here": {"softhyphen": "[soft\u00adhyphen] here"},
    "thumbs 👍🏽 and 👨‍👩‍👧": {"👍": "thumbs [👍🏽] and 👨‍👩‍👧", "👨": "thumbs 👍🏽 and [👨‍👩‍👧]"},
    "ฉันชอบกินข้าวผัด": {"ข้าว": "ฉันชอบกิน[ข้าว]ผัด", "กิน": "ฉันชอบ[กิน]ข้าวผัด"},
    "私は東京都に住む、京都も": {"京都": "私は東[京都]に住む、[京都]も"},
    "नमस्ते दुनिया": {"नमस्ते": "[नमस्ते] दुनिया"},
    "ﬁnancial ｏｆｆｉｃｅ": {"financial": "[financial] office"},
    "<b>bold</b> & <script>alert('x')</script>": {"alert": "<b>bold</b> & <script>[alert]('x')</script>"},
}


@pytest.mark.parametrize("text", MARKED)
async def test_what_matches_is_marked_and_nothing_else(store: EventStore, text: str) -> None:
    await say(store, text)
    assert {query: await marked(store, query) for query in MARKED[text]} == MARKED[text]


PIECES = ["e\u0323\u0302", "👨‍👩‍👧", "👍🏽", "ข้", "हिन्", "か\u3099", "❤️", "שָׁ", "word ", "x", "漢", "\n", "é"]


def is_mark(character: str) -> bool:
    return (
        unicodedata.combining(character) != 0
        or character in "\u200d\ufe0f🏽"
        or unicodedata.category(character) == "Mn"
    )


@given(
    st.lists(st.sampled_from(PIECES), max_size=30), st.lists(st.sampled_from(PIECES), max_size=30), st.integers(0, 40)
)
@example(before=["x"], behind=["e\u0323\u0302"] * 30, times=40)
@example(before=["x"], behind=["👨‍👩‍👧"] * 30, times=40)
@examples(25)
async def test_no_snippet_is_long_or_begins_or_ends_within_a_character(
    store: EventStore, before: list[str], behind: list[str], times: int
) -> None:
    text = "".join(before) * times + " needle " + "".join(behind) * times
    conversation = await say(store, text)
    [hit] = await Search(store).page("needle", conversation=conversation, marks=("[", "]"))
    shown = hit.snippet.replace("[needle]", "needle")
    assert hit.snippet.count("[") == 1
    assert len(shown) <= 800
    whole = unicodedata.normalize("NFKC", text)
    place = whole.find(shown)
    assert place >= 0
    end = place + len(shown)
    assert place == 0 or not (is_mark(whole[place]) or whole[place - 1] == "\u200d")
    assert end == len(whole) or not (is_mark(whole[end]) or whole[end - 1] == "\u200d")


async def test_a_snippet_from_the_middle_of_a_long_text_begins_with_a_word(store: EventStore) -> None:
    words = [f"lighthouse{number}" for number in range(2000)]
    await say(store, " ".join([*words[:1000], "getTreasureMap", *words[1000:]]))
    shown = await marked(store, "treasure")
    assert "get[Treasure]Map" in shown
    assert set(shown.replace("[", "").replace("]", "").split()) <= {*words, "getTreasureMap"}
