"""Digests can be recomputed by anybody from ``docs/concepts/digest.md``, and cover every column."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.digest import canonical, event_bytes, event_digest, read_json
from support.environment import TREE
from support.scoped_queries import open_scoped
from support.values import json_values, texts

from eventstore import EventStore, Metadata, NewEvent
from eventstore.event_types import ApplicationEvent
from eventstore.member_order import MEMBER

pytestmark = pytest.mark.shared_database

DOCUMENT = (TREE / "docs/concepts/digest.md").read_text(encoding="utf-8")
VECTORS: list[dict[str, Any]] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.S)]

COLUMNS = (
    "salt", "position", "timestamp", "version", "schema_version", "conversation_id", "id", "tenant_id", "event_type",
    "actor", "content", "metadata",
)  # fmt: skip
IN_SQL = """
SELECT event_digest(%(salt)s, %(position)s, %(timestamp)s, %(version)s, %(schema_version)s::smallint,
                    %(conversation_id)s::uuid, %(id)s::uuid, %(tenant_id)s, %(event_type)s, %(actor)s,
                    %(content)s::jsonb, %(metadata)s::jsonb),
       %(content)s::jsonb::text, %(metadata)s::jsonb::text
"""
AS_TEXT = (
    f"SELECT {', '.join(COLUMNS)}, digest FROM events".replace("content", "content::text AS content", 1)
    .replace("metadata", "metadata::text AS metadata")
)  # fmt: skip


def row_of(vector: dict[str, Any]) -> dict[str, Any]:
    return vector | {
        "salt": bytes.fromhex(vector["salt"]),
        "timestamp": datetime.fromisoformat(vector["timestamp"]),
        "content": read_json(vector["content"]),
        "metadata": read_json(vector["metadata"]),
    }


def test_the_document_lists_the_test_vectors() -> None:
    assert len(VECTORS) == 3


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"position {vector['position']}")
def test_the_vectors_hold_in_python(vector: dict[str, Any]) -> None:
    row = row_of(vector)
    assert canonical(row["content"]) == vector["canonical_content"]
    assert canonical(row["metadata"]) == vector["canonical_metadata"]
    assert event_bytes(row).hex() == vector["bytes"]
    assert event_digest(row).hex() == vector["digest"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"position {vector['position']}")
def test_the_vectors_hold_in_the_database(database_url: str, vector: dict[str, Any]) -> None:
    parameters = vector | {"salt": bytes.fromhex(vector["salt"]), "timestamp": row_of(vector)["timestamp"]}
    with psycopg.connect(database_url) as connection:
        found = connection.execute(IN_SQL, parameters).fetchone()
    assert found is not None
    digest, content, metadata = found
    assert digest.hex() == vector["digest"]
    assert (content, metadata) == (vector["canonical_content"], vector["canonical_metadata"])


@given(content=json_values, actor=texts(max_size=255), tenant=texts(min_size=1, max_size=255), extra=json_values)
async def test_python_and_the_database_agree_on_any_event(
    store: EventStore, content: Any, actor: str, tenant: str, extra: Any
) -> None:
    sent = NewEvent(ApplicationEvent("anything", content), actor=actor, metadata=Metadata(extra=extra))
    conversation = uuid4()
    await store.append(conversation, [sent], tenant=tenant)
    [event] = [event async for event in store.read(conversation, tenant=tenant)]
    # From what was sent and from where the log put it, without looking at what the log stored: but for the order of
    # the members, which stands in the metadata too.
    order = {name: value for name, value in event.raw_metadata.items() if name == MEMBER}
    row = {name: getattr(event, name) for name in COLUMNS if name not in ("content", "metadata")}
    assert event_digest(row | {"content": content, "metadata": {"extra": extra} | order}) == event.digest


async def test_the_digest_of_a_stored_row_matches(store: EventStore, database_url: str) -> None:
    contents = [1e23, 5e-324, 0.1, -0.0, 2**70, {"b": 1, "aa": 2, "ä": 3}, "\x7f\x1f\u2028", [], {}, None]
    await store.append(uuid4(), [ApplicationEvent("anything", content) for content in contents])
    with open_scoped(database_url, store.tenant) as connection:
        cursor = connection.execute(AS_TEXT.encode())
        rows = [dict(zip((*COLUMNS, "digest"), row, strict=True)) for row in cursor]
    assert len(rows) == len(contents)
    for row in rows:
        values = {"content": read_json(row["content"]), "metadata": read_json(row["metadata"])}
        assert canonical(values["content"]) == row["content"]
        assert event_digest(row | values) == row["digest"]


async def test_every_event_has_its_own_salt(store: EventStore) -> None:
    await store.append(uuid4(), [ApplicationEvent("anything") for _ in range(50)])
    salts = {event.salt async for event in store.read_log()}
    assert len(salts) == 50
    assert {len(salt or b"") for salt in salts} == {16}


@given(
    which=st.sampled_from([name for name in COLUMNS if name not in ("content", "metadata")]), vector=st.integers(0, 2)
)
def test_each_column_changes_the_digest(which: str, vector: int) -> None:
    row = row_of(VECTORS[vector])
    other = row_of(VECTORS[(vector + 1) % 3])
    if row[which] != other[which]:
        assert event_digest(row | {which: other[which]}) != event_digest(row)
