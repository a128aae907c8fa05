"""Ids of clients become the same UUIDs on every machine and in every run, and never collide by accident."""

from __future__ import annotations

import hashlib
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.values import texts

from eventstore import EventStore, IdAssigner, conversation_uuid
from eventstore.errors import InputError, InvalidId
from eventstore.ids import derived_uuid, is_canonical_uuid, own_given_id, parse_uuid

CONVERSATION = UUID("490bc4cc-6069-5ccd-978e-b016e0f7d827")
CANONICAL = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


def test_derived_ids_never_change() -> None:
    assert conversation_uuid("default", "chat-1") == CONVERSATION
    assigner = IdAssigner("default", CONVERSATION, "message")
    assert [assigner.assign("m"), assigner.assign("m")] == [
        UUID("cec17ee6-01d8-5eac-a6a4-4dee75517d43"),
        UUID("7193291f-d3bd-51a4-9e28-5d5f6e63e673"),
    ]


def test_a_text_that_is_a_uuid_is_used_as_it_is() -> None:
    assert conversation_uuid("default", CANONICAL) == UUID(CANONICAL)
    assert IdAssigner("default", CONVERSATION, "message").assign(CANONICAL) == UUID(CANONICAL)


@given(st.lists(st.tuples(texts(min_size=1, max_size=80), texts(max_size=200) | st.uuids().map(str)), max_size=30))
@examples(20)
async def test_the_server_makes_the_same_ids(store: EventStore, names: list[tuple[str, str]]) -> None:
    names += [
        ("default", "chat-1"),
        ("default", CANONICAL),
        ("default", CANONICAL.upper()),
        ("default", CANONICAL + "\n"),
    ]
    text = (
        "SELECT conversation_uuid(t, g) FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS n (t, g, no) ORDER BY no"
    )
    tenants, given_ids = map(list, zip(*names, strict=True))
    rows = await store.pool.fetch(text, [tenants, given_ids])
    assert [row[0] for row in rows] == [conversation_uuid(*name) for name in names]


@given(st.integers(0, 200))
@examples(20)
async def test_the_server_has_sha1(store: EventStore, length: int) -> None:
    message = bytes(range(length))
    [[digest]] = await store.pool.fetch("SELECT sha1(%s)", [message])
    assert bytes(digest) == hashlib.sha1(message).digest()


def test_an_id_of_another_conversation_is_not_its_own() -> None:
    assert own_given_id("default", CONVERSATION, "chat-1") == "chat-1"
    assert own_given_id("another", CONVERSATION, "chat-1") is None
    assert own_given_id("default", CONVERSATION, "chat-2") is None
    assert own_given_id("default", CONVERSATION, str(CONVERSATION)) is None
    assert own_given_id("default", CONVERSATION, None) is None


@pytest.mark.parametrize("text", [CANONICAL.upper(), f"{{{CANONICAL}}}", CANONICAL.replace("-", ""), CANONICAL + " "])
def test_other_spellings_of_a_uuid_are_other_names(text: str) -> None:
    assert not is_canonical_uuid(text)
    assert conversation_uuid("default", text) != UUID(CANONICAL)


@given(st.uuids())
def test_every_uuid_as_python_prints_it_is_canonical(value: UUID) -> None:
    assert is_canonical_uuid(str(value))


def test_a_repeated_id_is_used_once_and_derived_after_that() -> None:
    assigner = IdAssigner("default", CONVERSATION, "message")
    ids = [assigner.assign(text) for text in (CANONICAL, "a", CANONICAL, "a", "b")]
    assert ids[0] == UUID(CANONICAL)
    assert len(set(ids)) == 5
    again = IdAssigner("default", CONVERSATION, "message")
    assert [again.assign(text) for text in (CANONICAL, "a", CANONICAL, "a", "b")] == ids


def test_ids_differ_by_tenant_conversation_and_kind() -> None:
    ids = {
        IdAssigner(tenant, conversation, kind).assign("a")
        for tenant in ("default", "other")
        for conversation in (CONVERSATION, UUID(CANONICAL))
        for kind in ("message", "task")
    }
    assert len(ids) == 8
    assert conversation_uuid("default", "a") != conversation_uuid("other", "a")


@given(st.lists(texts(), min_size=1, max_size=4), st.lists(texts(), min_size=1, max_size=4))
def test_names_cannot_imitate_one_another(some: list[str], others: list[str]) -> None:
    assert (derived_uuid(*some) == derived_uuid(*others)) == (some == others)


def test_an_id_that_is_not_unicode_text_is_refused() -> None:
    with pytest.raises(InvalidId, match="lone surrogate"):
        conversation_uuid("default", "\ud800")


@pytest.mark.parametrize("value", ["", "no uuid", CANONICAL[:-1], 5, None, b"bytes"])
def test_a_text_that_is_not_a_uuid_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidId, match=r"^conversation_id: .* is not a UUID") as refused:
        parse_uuid(value, "conversation_id")  # type: ignore[arg-type]
    assert isinstance(refused.value, InputError)


def test_uuids_are_read_unchanged() -> None:
    value = uuid4()
    assert parse_uuid(value, "id") is value
    assert parse_uuid(str(value), "id") == value
