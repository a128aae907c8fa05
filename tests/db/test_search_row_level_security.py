"""Attacks on row-level security by search: the search function reads all documents and discloses only visible ones."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from support.logins import Logins, Session
from support.plans import explain_inside
from support.scoped_queries import open_scoped, set_role, set_scope
from support.searching import SEARCH
from support.sql_appends import append_one

from eventstore import EventStore
from projections import catch_up

pytestmark = pytest.mark.shared_database

Found = Callable[..., list[tuple[UUID, str]]]


@pytest.fixture
def found(logins: Logins) -> Found:
    """Search for a tenant and a user: return conversations, and the corrected query."""
    session = set_role(logins.session("app"), "eventstore_reader")

    def search(query: str, tenant: str, user: str = "", by: str = "relevance") -> list[tuple[UUID, str]]:
        set_scope(session, tenant, user)
        text = "SELECT conversation_id, searched FROM search_for(%s, %s, by => %s)"
        return session.execute(text, (query, tenant, by)).fetchall()

    return search


async def add_messages(store: EventStore, service: Session, tenant: str, user: str, *texts: str) -> UUID:
    conversation = uuid4()
    for text in texts:
        assert (
            append_one(service, tenant, conversation, user, "message.added", {"role": "user", "content": text}) == "n"
        )
    await catch_up(store, SEARCH)
    return conversation


async def test_a_user_with_many_conversations_finds_what_is_in_one_of_them(
    store: EventStore, service: Session, own_tenant: str, found: Found
) -> None:
    own = {await add_messages(store, service, own_tenant, "ana", "needle in hay")}
    for number in range(201):
        assert append_one(service, own_tenant, UUID(int=number + 1), "ana") == "n"
    await add_messages(store, service, own_tenant, "bob", *["needle in hay of bob's"] * 30)
    for by in ("relevance", "time"):
        assert {conversation for conversation, _ in found("needle", own_tenant, "ana", by)} == own


async def test_a_misspelt_word_is_not_corrected_to_a_word_that_only_hidden_messages_hold(
    store: EventStore, service: Session, own_tenant: str, found: Found
) -> None:
    await add_messages(store, service, own_tenant, "bob", "the acquisition of Initech")
    own = await add_messages(store, service, own_tenant, "ana", "the itinerary of the journey")
    assert found("acquisitoin", own_tenant, "ana") == []
    assert found("itinerayr", own_tenant, "ana") == [(own, "itinerary")]
    assert [searched for _, searched in found("acquisitoin", own_tenant, "bob")] == ["acquisition"]


async def test_a_correction_does_not_depend_on_languages_of_hidden_conversations(
    store: EventStore, service: Session, own_tenant: str, found: Found
) -> None:
    own = await add_messages(store, service, own_tenant, "ana", "bil", "bil", "bil", "bilarnax")
    before = found("bilarnaa", own_tenant, "ana")
    assert before == [(own, "bilarnax")]
    swedish = uuid4()  # in Swedish "bilarna" is a form of "bil"
    created = {"metadata": {"language": "sv"}}
    assert append_one(service, own_tenant, swedish, "bob", "conversation.created", created) == "n"
    await add_messages(store, service, own_tenant, "bob", "hej")
    assert found("bilarnaa", own_tenant, "ana") == before


async def test_corrections_read_no_document_of_conversations_that_a_user_may_not_see(
    store: EventStore, service: Session, own_tenant: str, superuser_url: str
) -> None:
    for words in ("the itinerary", "the acquisition of Initech"):
        await add_messages(store, service, own_tenant, "bob", *[words] * 20)
    await add_messages(store, service, own_tenant, "ana", "a journey", "a train")
    with open_scoped(superuser_url, own_tenant, "ana") as connection:
        text = """SELECT * FROM search_corrections(%(q)s, search_languages(%(tenant)s), %(tenant)s, NULL, NULL,
                                                   NULL, NULL, '-infinity', 'infinity')"""
        for query in ("acquisitoin", "itinerayr", "nowhereatall"):
            [sample] = [
                plan
                for plan in explain_inside(connection, text, {"q": query, "tenant": own_tenant})
                if plan.statement.startswith("SELECT array_agg(ROW(")
            ]
            read = sum(
                node["Actual Rows"] * node["Actual Loops"]
                for node in sample.nodes
                if node.get("Relation Name") == "search_documents"
            )
            assert read == 2, sample.text
