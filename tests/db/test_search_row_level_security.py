"""The search sees everything, and shows each only what is his."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from support.logins import Logins, Session
from support.plans import explain_inside
from support.scoped_queries import act_as, ask, asking
from support.searching import SEARCH
from support.sql_appends import say

from eventstore import EventStore
from projections import catch_up

Found = Callable[..., list[tuple[UUID, str]]]


@pytest.fixture
def found(logins: Logins) -> Found:
    """Searches for a tenant and a user: conversations, and the query that was searched for."""
    session = act_as(logins.session("app"), "eventstore_reader")

    def search(query: str, tenant: str, user: str = "", by: str = "relevance") -> list[tuple[UUID, str]]:
        ask(session, tenant, user)
        text = "SELECT conversation_id, searched FROM search_for(%s, %s, by => %s)"
        return session.execute(text, (query, tenant, by)).fetchall()

    return search


async def spoken(store: EventStore, service: Session, tenant: str, user: str, *said: str) -> UUID:
    conversation = uuid4()
    for text in said:
        assert say(service, tenant, conversation, user, "message.added", {"role": "user", "content": text}) == "n"
    await catch_up(store, SEARCH)
    return conversation


async def test_who_has_many_conversations_finds_his_own_too(store: EventStore, service: Session, found: Found) -> None:
    own = {await spoken(store, service, "acme", "ana", "needle in hay")}
    for number in range(201):
        assert say(service, "acme", UUID(int=number + 1), "ana") == "n"
    await spoken(store, service, "acme", "bob", *["needle in hay of bob's"] * 30)
    for by in ("relevance", "time"):
        assert {conversation for conversation, _ in found("needle", "acme", "ana", by)} == own


async def test_a_misspelt_word_is_not_corrected_to_what_only_others_have_said(
    store: EventStore, service: Session, found: Found
) -> None:
    await spoken(store, service, "acme", "bob", "the acquisition of Initech")
    own = await spoken(store, service, "acme", "ana", "the itinerary of the journey")
    assert found("acquisitoin", "acme", "ana") == []
    assert found("itinerayr", "acme", "ana") == [(own, "itinerary")]
    assert [searched for _, searched in found("acquisitoin", "acme", "bob")] == ["acquisition"]


async def test_a_correction_depends_on_no_language_that_only_others_speak(
    store: EventStore, service: Session, found: Found
) -> None:
    own = await spoken(store, service, "acme", "ana", "bil", "bil", "bil", "bilarnax")
    before = found("bilarnaa", "acme", "ana")
    assert before == [(own, "bilarnax")]
    swedish = uuid4()  # in Swedish "bilarna" is a form of "bil"
    created = {"metadata": {"language": "sv"}}
    assert say(service, "acme", swedish, "bob", "conversation.created", created) == "n"
    await spoken(store, service, "acme", "bob", "hej")
    assert found("bilarnaa", "acme", "ana") == before


async def test_corrections_read_no_document_of_conversations_that_a_user_may_not_see(
    store: EventStore, service: Session, superuser_url: str
) -> None:
    for words in ("the itinerary", "the acquisition of Initech"):
        await spoken(store, service, "acme", "bob", *[words] * 20)
    await spoken(store, service, "acme", "ana", "a journey", "a train")
    with asking(superuser_url, "acme", "ana") as connection:
        text = (
            "SELECT * FROM search_corrections(%(q)s, 'acme', NULL, NULL, NULL, NULL, '-infinity', 'infinity', 1000000)"
        )
        for query in ("acquisitoin", "itinerayr", "nowhereatall"):
            [sample] = [
                plan
                for plan in explain_inside(connection, text, {"q": query})
                if plan.statement.startswith("SELECT s.kind::text")
            ]
            read = sum(
                node["Actual Rows"] * node["Actual Loops"]
                for node in sample.nodes
                if node.get("Relation Name") == "search_documents"
            )
            assert read == 2, sample.text
