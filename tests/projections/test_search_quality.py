"""The results of searches: stems, accents, phrases and more, in Portuguese and English."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.searching import SEARCH, found, say

from eventstore import EventStore, MessageAdded, TaskArtifactAdded, TaskCreated, TaskDescribed, TaskStatusChanged
from projections import Search, catch_up, rebuild

pytestmark = pytest.mark.shared_database

TEXTS = {
    "booking": "Gostaria de alterar a minha reserva para a próxima sexta-feira, por favor.",
    "trips": "As viagens de comboio entre Lisboa e o Porto são mais baratas do que as passagens aéreas.",
    "news": "Não recebi nenhuma informação sobre o cancelamento do voo.",
    "actions": "Quais são as ações que posso tomar? Já falei com três hotéis e com os animais em casa.",
    "heart": "O coração dela batia depressa quando o avião aterrou.",
    "station": "The train station is closed on Sundays, so we walked to the hotel.",
    "running": "She was running late and had cancelled both of her flights.",
    "studies": "The studies show that children who read daily have better memories.",
    "naïve": "It would be naïve to think that the café serves a proper crème brûlée.",
    "spanish": "El billete de tren cuesta veinte euros y no hay asientos para los niños.",
    "german": "Der Zug nach München ist heute leider nicht pünktlich und die Fahrgäste warten.",
}

FINDS = {
    # stems
    "reservas": ["booking"],
    "reservar": ["booking"],
    "viagem": ["trips"],
    "informações": ["news"],
    "ação": ["actions"],
    "hotel": ["actions", "station"],
    "animal": ["actions"],
    "corações": ["heart"],
    "aviões": ["heart"],
    "flight": ["running"],
    "run cancel": ["running"],
    "study": ["studies"],
    "read memory": ["studies"],
    "walking": ["station"],
    "asiento": ["spanish"],
    "fahrgast": ["german"],
    # accents, typed or not, and capital letters
    "informacao": ["news"],
    "informacoes": ["news"],
    "acao": ["actions"],
    "acoes": ["actions"],
    "proxima": ["booking"],
    "PRÓXIMA SEXTA": ["booking"],
    "coracao": ["heart"],
    "cafe creme brulee": ["naïve"],
    "naive": ["naïve"],
    "munchen": ["german"],
    # phrases
    '"train station"': ["station"],
    '"station train"': [],
    '"reserva para a próxima"': ["booking"],
    "sexta-feira": ["booking"],
    # all words, without, or
    "lisboa porto": ["trips"],
    "lisboa madrid": [],
    "hotel -train": ["actions"],
    'hotel -"train station"': ["actions"],
    "lisboa or madrid": ["trips"],
    "madrid or lisboa or coração": ["heart", "trips"],
    "train closed or cancelled late": ["running", "station"],
    # prefixes
    "viage*": ["trips"],
    "informaç*": ["news"],
    "informac*": ["news"],
    "canc*": ["news", "running"],
    "stud*": ["studies"],
    "childr*": ["studies"],
}


@pytest.fixture
async def filled(store: EventStore) -> EventStore:
    for text in TEXTS.values():
        await say(store, text)
    return store


async def test_words_are_found_in_their_forms(filled: EventStore) -> None:
    names = {text: name for name, text in TEXTS.items()}
    events = filled.read_log()
    name_of = {
        event.id: names[event.content["content"]] async for event in events if event.event_type == "message.added"
    }
    differing = {}
    for query, expected in FINDS.items():
        best = [name_of[hit.id] for hit in (await Search(filled).page(query)).items]
        latest = [name_of[hit.id] for hit in (await Search(filled).page(query, by="time")).items]
        if not sorted(best) == sorted(latest) == expected:
            differing[query] = (best, latest)
    assert differing == {}


@pytest.mark.parametrize(
    ("query", "meant", "name"),
    [
        ("viajens", "viagens", "trips"),
        ("reesrva", "reserva", "booking"),
        ("informção", "informação", "news"),
        ("statoin closed", "station closed", "station"),
        ("(statoin, closde?)", "station closed", "station"),
        ("cancelld flights", "cancelled flights", "running"),
        ("chldren", "children", "studies"),
    ],
)
async def test_misspelt_words_are_corrected(filled: EventStore, query: str, meant: str, name: str) -> None:
    page = await Search(filled).page(query, marks=("", ""))
    assert [hit.snippet[:20] for hit in page.items] == [TEXTS[name][:20]]
    assert page.searched == meant


@given(st.data())
@examples(20)
async def test_a_word_with_one_wrong_letter_finds_a_whole_word_of_the_texts(
    filled: EventStore, data: st.DataObject
) -> None:
    words = sorted({word.lower() for word in re.findall(r"[a-zA-Z]{6,}", TEXTS["station"] + TEXTS["studies"])})
    word = data.draw(st.sampled_from(words))
    at = data.draw(st.integers(0, len(word) - 2))
    letter = data.draw(st.sampled_from("bxzй"))
    wrong = data.draw(
        st.sampled_from(
            [
                word[:at] + word[at + 1 :],
                word[:at] + letter + word[at:],
                word[:at] + letter + word[at + 1 :],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            ]
        )
    )
    page = await Search(filled).page(wrong, marks=("", ""))
    assert page.items
    assert page.searched in (wrong, word)  # what is wrong can be another form, which is found as it is


async def test_a_missing_or_exchanged_letter_is_likelier_than_a_wrong_one(store: EventStore) -> None:
    await say(store, "coast", "costs costs", "costs", "wonder", "wander", "wander", "nonfree")
    search = Search(store)
    assert (await search.page("coats")).searched == "coast"
    assert (await search.page("wnder")).searched == "wander"
    assert (await search.page("wonderx")).searched == "wonder"
    assert (await search.page("nonfre")).searched == "nonfree"  # although that is its stem
    assert (await search.page("wandйr")).searched == "wander"


async def test_the_most_frequent_of_several_near_words_is_taken_and_a_form_is_not_misspelt(store: EventStore) -> None:
    await say(store, "the stone", "the stole", "another stole", "a grain", "training")
    search = Search(store)
    assert (await search.page("stoke")).searched == "stole"
    assert (await search.page("trains nowhere")).searched == "trains nowhere"
    assert (await search.page("stoke", actor="nobody")).items == []


async def test_a_word_is_corrected_to_one_that_only_old_texts_have(store: EventStore) -> None:
    await say(store, "Informação sobre o farol")
    await say(store, *["something else"] * 1200)
    search = Search(store)
    assert (await search.page("informacoa")).searched == "informação"
    assert (await search.page("farrol", role="user", until=datetime.now(UTC))).searched == "farol"
    for filters in ({"role": "assistant"}, {"kind": "task"}, {"until": datetime(2020, 1, 1, tzinfo=UTC)}):
        assert (await search.page("farrol", **filters)).searched == "farrol"  # type: ignore[arg-type]


async def test_three_words_of_a_query_are_corrected(store: EventStore) -> None:
    await say(store, "amber copper silver golden")
    search = Search(store)
    assert (await search.page("ambre coper silvr golden")).searched == "amber copper silver golden"
    assert (await search.page("ambre coper silvr goldne")).items == []


async def test_words_of_other_alphabets_are_corrected(store: EventStore) -> None:
    await say(store, "поезд прибывает вечером")
    assert (await Search(store).page("прибыавет")).searched == "прибывает"


async def test_absent_words_find_nothing_and_present_words_are_not_corrected(filled: EventStore) -> None:
    for query in ("xylophonist", "lisboa xylophonist", '"statoin"', "-train -hotel zzzz", "12345678"):
        page = await Search(filled).page(query)
        assert (page.items, page.next) == ([], None), query
    assert (await Search(filled).page("porto station")).searched == "porto station"


async def test_snippets_show_the_text_as_it_was_written_with_marks(filled: EventStore) -> None:
    async def snippet(query: str) -> str:
        [hit] = (await Search(filled).page(query, marks=("[", "]"))).items
        return hit.snippet

    assert "[viagens] de comboio" in await snippet("viagem")
    assert "nenhuma [informação] sobre" in await snippet("informacoes")
    assert "três [hotéis] e" in await snippet("hotel -train")
    assert "the [café] serves a proper [crème] [brûlée]" in await snippet("cafe creme brulee")
    assert "[running] late" in await snippet("run")


async def test_the_snippet_of_a_long_text_is_the_matching_passage(store: EventStore) -> None:
    await say(store, "palavra " * 5000 + "e no fim um coração " + "palavra " * 2000)
    [hit] = (await Search(store).page("corações", marks=("[", "]"))).items
    assert "e no fim um [coração] palavra" in hit.snippet
    assert len(hit.snippet) < 1000


async def test_tool_calls_and_structured_parts_are_found(store: EventStore) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "S\\u00e3o Paulo", "days": 3}'},
    }
    conversation = await say(
        store,
        MessageAdded(role="assistant", extra={"content": None, "tool_calls": [call]}),
        MessageAdded(role="tool", content='{"temperature": 31, "sky": "thunderstorm"}'),
        MessageAdded(
            role="user", parts=[{"kind": "text", "text": "Book it"}, {"kind": "data", "data": {"seat": "window"}}]
        ),
        MessageAdded(role="user", parts=[{"kind": "file", "file": {"name": "invoice.pdf", "bytes": "bGlzYm9h"}}]),
        MessageAdded(
            role="assistant", parts=[{"type": "tool_use", "name": "lookup_order", "input": {"order": "A-77"}}]
        ),
    )

    async def versions(query: str) -> list[int]:
        hits = (await Search(store).page(query, by="time")).items
        assert {hit.conversation_id for hit in hits} <= {conversation}
        return [hit.version for hit in hits]

    assert await versions("get_weather") == [2]
    assert await versions("weather sao paulo") == [2]
    assert await versions("thunderstorms") == [3]
    assert await versions("seat window") == [4]
    assert await versions("invoice.pdf") == [5]
    assert await versions("bGlzYm9h") == []
    assert await versions("lookup A-77") == [6]


async def test_tasks_are_found_by_their_latest_description_their_states_and_artifacts(store: EventStore) -> None:
    task = uuid4()
    await say(
        store,
        TaskCreated(task_id=task, description="compare ferry prices"),
        TaskStatusChanged(task_id=task, status="input-required", message={"parts": [{"text": "which harbour?"}]}),  # type: ignore[arg-type]
        TaskArtifactAdded(task_id=task, artifact_id="a", name="table", parts=[{"text": "Calais 40 euros"}]),
        MessageAdded(role="user", content="the ferry"),
    )

    async def kinds(query: str, **filters: str) -> list[str]:
        hits = (await Search(store).page(query, by="time", **filters)).items  # type: ignore[arg-type]
        assert {hit.id for hit in hits if hit.kind != "message"} <= {task}
        return [hit.kind for hit in hits]

    assert await kinds("ferry") == ["message", "task"]
    assert await kinds("ferry", kind="task") == ["task"]
    assert await kinds("ferry", kind="message") == ["message"]
    assert await kinds("harbour or calais") == ["artifact", "status"]
    [[conversation]] = await store.log(store.caller()).fetch("SELECT DISTINCT conversation_id FROM events")
    await store.append(conversation, [TaskDescribed(task_id=task, description="compare bus prices")])
    await catch_up(store, SEARCH)
    assert await kinds("ferry or bus", kind="task") == ["task"]
    assert await found(store, "compare") == ["compare bus prices"]


async def languages(store: EventStore) -> list[str]:
    """The languages that the store's documents are indexed in, in the order of the log."""
    query = "SELECT language FROM search_documents WHERE tenant_id = %s ORDER BY position"
    return [language for (language,) in await store.connections.projector.fetch(query, (store.tenant,))]


async def test_a_conversation_can_name_its_language(store: EventStore) -> None:
    word = "constitutions"
    for language in ("pt-BR", "en-US", "fi", "no such language", None):
        await say(store, word, language=language)
    assert await languages(store) == ["pt", "en", "fi", "und", "und"]
    assert len(await found(store, "constitution", language="en")) == 3
    assert len(await found(store, "constitutions")) == 5


async def test_the_language_of_a_message_is_detected_from_its_words(store: EventStore) -> None:
    for text in TEXTS.values():
        await say(store, text)
    assert await languages(store) == ["pt"] * 5 + ["en"] * 4 + ["es", "de"]


async def test_a_rebuild_finds_the_same(filled: EventStore) -> None:
    async def everything() -> list[object]:
        return [(query, (await Search(filled).page(query)).items) for query in FINDS]

    before = await everything()
    rows = await filled.connections.projector.fetch("SELECT * FROM search_documents ORDER BY position")
    await rebuild(filled, SEARCH)
    assert await everything() == before
    assert await filled.connections.projector.fetch("SELECT * FROM search_documents ORDER BY position") == rows
