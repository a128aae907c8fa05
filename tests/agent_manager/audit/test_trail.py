"""The trail: selected by correlation, as causes and effects, over HTTP, and recorded when it is read."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zipfile import ZipFile

import pytest
from support.callers import People
from support.serving import Served

from agent_manager.audit import trail
from agent_manager.audit.trail import read_causation
from agent_manager.auth import Directory, TokenScope
from eventstore import (
    ApplicationEvent,
    EventStore,
    MessageAdded,
    MessageAnswered,
    Metadata,
    NewEvent,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskStatusChanged,
)
from eventstore.administration import ADMINISTRATION, Administrator, act_as
from eventstore.errors import InputError, NotFound
from projections import Reader

pytestmark = pytest.mark.shared_database

TASK = UUID("00000000-0000-4000-8000-000000000005")


def said(text: str, *, role: Any = "user", cause: UUID | None = None, task: str | None = None) -> NewEvent:
    extra = None if task is None else {"taskId": task}
    data = MessageAdded(role=role, content=text, extra=extra)
    return NewEvent(data, actor=role, metadata=caused_by(cause))


def caused_by(cause: UUID | None) -> Metadata:
    return Metadata(causation_id=None if cause is None else str(cause))


async def tree(store: EventStore, conversation: UUID, event: UUID) -> list[tuple[int, str]]:
    found = await read_causation(store, store.caller(), conversation, event)
    return [(-1, each.event_type) for each in found.causes] + [
        (each.depth, each.event.event_type) for each in found.effects
    ]


async def test_a_message_has_caused_its_task_the_artifacts_and_the_reply(store: EventStore) -> None:
    conversation, other = uuid4(), uuid4()
    asked = said("to Lisbon")
    by = {"metadata": caused_by(asked.id), "actor": "agent"}
    events = [
        NewEvent(TaskCreated(task_id=TASK, given_id="t1"), **by),
        NewEvent(TaskArtifactAdded(task_id=TASK, artifact_id="a", parts=[], last_chunk=False), **by),
        NewEvent(TaskArtifactExtended(task_id=TASK, artifact_id="a", parts=[]), **by),
        NewEvent(TaskStatusChanged(task_id=TASK, status="input-required"), **by),
        said("which day?", role="assistant", cause=asked.id),
        NewEvent(MessageAnswered(message_id=asked.id, outcome="answered", task_id=TASK)),
    ]
    await store.append(conversation, [said("before"), asked, *events])
    more = said("on Monday", task="t1")
    done = NewEvent(TaskStatusChanged(task_id=TASK, status="completed"), metadata=caused_by(more.id))
    await store.append(conversation, [more, done])
    await store.append(other, [said("elsewhere", cause=asked.id)])
    expected = [
        (0, "message.added"),
        (1, "task.created"),
        (2, "task.artifact_added"),
        (3, "task.artifact_extended"),
        (2, "task.status_changed"),
        (2, "message.added"),
        (3, "task.status_changed"),
        (1, "message.added"),
        (1, "message.answered"),
    ]
    assert await tree(store, conversation, asked.id) == expected
    assert await tree(store, conversation, done.id) == [
        (-1, "message.added"), (-1, "task.created"), (-1, "message.added"), (0, "task.status_changed"),
    ]  # fmt: skip
    assert await tree(store, other, (await anext(aiter(store.read(other)))).id) == [(0, "message.added")]


async def test_causes_and_effects_are_followed_into_other_conversations(store: EventStore) -> None:
    first, second, third, hidden = (uuid4() for _ in range(4))
    asked = said("plan a trip")
    delegated = said("book a train", cause=asked.id)
    reply = said("booked", role="assistant", cause=delegated.id)
    await store.append(first, [asked, said("on it", role="assistant", cause=asked.id)], user="ana")
    await store.append(
        second, [delegated, NewEvent(reply.data, reply.id, "assistant", caused_by(delegated.id))], user="ana"
    )
    last = said("tell the user", cause=reply.id)
    await store.append(third, [last, said("unrelated")], user="ana")
    await store.append(hidden, [said("of another user", cause=asked.id)], user="ben")

    async def found(conversation: UUID, event: UUID, user: str | None = None) -> list[tuple[int, str]]:
        tree = await read_causation(store, store.caller(user=user), conversation, event, across=True)
        causes = [(-1, each.content["content"]) for each in tree.causes]
        return causes + [(each.depth, each.event.content["content"]) for each in tree.effects]

    whole = [(0, "plan a trip"), (1, "on it"), (1, "book a train"), (2, "booked"), (3, "tell the user")]
    assert await found(first, asked.id, "ana") == whole
    assert await found(first, asked.id) == [*whole, (1, "of another user")]
    assert await found(third, last.id, "ana") == [
        (-1, "plan a trip"), (-1, "book a train"), (-1, "booked"), (0, "tell the user"),
    ]  # fmt: skip
    assert await found(second, delegated.id) == [
        (-1, "plan a trip"),
        (0, "book a train"),
        *[(1, "booked"), (2, "tell the user")],
    ]


async def test_causes_in_two_conversations_that_make_a_circle_end(store: EventStore) -> None:
    first, second = said("a"), said("b")
    conversations = uuid4(), uuid4()
    for conversation, event, cause in zip(conversations, (first, second), (second, first), strict=True):
        await store.append(conversation, [NewEvent(event.data, event.id, "", caused_by(cause.id))])
    tree = await read_causation(store, store.caller(), conversations[0], first.id, across=True)
    assert (tree.causes, [each.event.id for each in tree.effects]) == ([], [first.id, second.id])
    tree = await read_causation(store, store.caller(), conversations[1], second.id, across=True)
    assert ([each.id for each in tree.causes], [each.event.id for each in tree.effects]) == ([first.id], [second.id])


async def test_causes_that_make_a_circle_or_name_nothing_end(store: EventStore) -> None:
    first, second = uuid4(), uuid4()
    events = [
        NewEvent(MessageAdded(role="user", content="a"), id=first, metadata=caused_by(second)),
        NewEvent(MessageAdded(role="user", content="b"), id=second, metadata=caused_by(first)),
        NewEvent(MessageAdded(role="user", content="c"), metadata=Metadata(causation_id="a request")),
        NewEvent(TaskStatusChanged(task_id=TASK, status="failed")),
    ]
    conversation = uuid4()
    await store.append(conversation, events)
    assert await tree(store, conversation, first) == [(0, "message.added"), (1, "message.added")]
    with pytest.raises(NotFound, match="has no event"):
        await tree(store, conversation, uuid4())
    with pytest.raises(NotFound):
        await read_causation(store, store.caller(user="nobody"), conversation, first)


async def test_causes_and_effects_take_bounded_memory(here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MAX_BYTES", 10_000)
    asked = said("to Lisbon")
    conversation = uuid4()
    await here.store.append(conversation, [asked, *(said("x" * 2000, cause=asked.id) for _ in range(2))])
    path = f"/v1/conversations/{conversation}/events/{asked.id}/causation"
    assert len((await here.client.get(path)).json()["effects"]) == 3
    await here.store.append(conversation, [said("x" * 2000, cause=asked.id) for _ in range(2)])
    refused = await here.client.get(path)
    assert (refused.status_code, "more than 10,000 bytes" in refused.text) == (422, True)


async def test_events_are_selected_by_their_correlation_id(store: EventStore) -> None:
    wanted = Metadata(correlation_id="order 7")
    for correlated in (wanted, Metadata(correlation_id="order 8"), wanted):
        await store.append(uuid4(), [NewEvent(ApplicationEvent("ordered"), metadata=correlated)])
    found = await Reader(store).history(correlation_id="order 7")
    assert [event.metadata.correlation_id for event in found] == ["order 7", "order 7"]
    [last] = await Reader(store).history(found[1].conversation_id, correlation_id="order 7")
    assert last == found[1]
    assert not await Reader(store).history(last.conversation_id, correlation_id="order 8")


async def test_acts_are_in_the_log_and_nowhere_else(here: Served) -> None:
    act_as(Administrator("root", "test", "a new customer"))
    await Directory(here.store).add_tenant(here.store.tenant)
    acts = (await here.client.get("/v1/audit/trail", params={"acts": True})).json()["items"]
    [added] = [each for each in acts if each["event_type"] == "eventstore.tenant_added"]
    assert (added["actor"], added["reason"], added["via"].partition(" ")[0]) == ("root", "a new customer", "test")
    trip = await here.begin(name="Trip")
    await here.say(trip, "tenant_added")
    assert [each["id"] for each in (await here.client.get("/v1/conversations")).json()["items"]] == [trip]
    counted = (await here.client.get("/v1/statistics")).json()
    assert "root" not in str(counted)
    hits = (await here.client.get("/v1/search", params={"q": "customer"})).json()["items"]
    assert hits == []
    for path in ("", "/messages", "/events", "/state", "/comparison?version=1", f"/events/{added['id']}/causation"):
        assert (await here.client.get(f"/v1/conversations/{ADMINISTRATION}{path}")).status_code == 404, path
    for path, body in (
        ("messages", {"role": "user", "content": "forged"}),
        ("events", {"events": [{"event_type": "noted"}]}),
        ("forks", {}),
    ):
        refused = await here.client.post(f"/v1/conversations/{ADMINISTRATION}/{path}", json=body)
        assert refused.status_code in (404, 422), refused.text
    assert (await here.client.post("/v1/conversations", json={"id": str(ADMINISTRATION)})).status_code == 422
    with pytest.raises(InputError, match="administrative acts"):
        await here.store.append(ADMINISTRATION, [ApplicationEvent("noted")])


async def test_the_trail_over_http_is_filtered_and_paged(here: Served) -> None:
    trip = await here.begin(name="Trip")
    await here.say(trip, "one")
    await here.client.post(f"/v1/conversations/{trip}/messages", json={"role": "user", "content": "two"})
    metadata = {"correlation_id": "c", "causation_id": "d", "occurred_at": "2026-01-01T00:00:00+00:00"}
    event = {"event_type": "noted", "content": {"reason": "why not"}, "actor": "ana", "metadata": metadata}
    await here.client.post(f"/v1/conversations/{trip}/events", json={"events": [event]})

    async def trail(**query: Any) -> list[dict[str, Any]]:
        found = await here.client.get("/v1/audit/trail", params=query)
        assert found.status_code == 200, found.text
        return list(found.json()["items"])

    everything = [each["event_type"] for each in await trail(conversation=trip)]
    assert everything == ["conversation.created", "message.added", "message.added", "noted"]
    assert [each["event_type"] for each in await trail(type="message.added", limit=1)] == ["message.added"]
    [noted] = await trail(correlation_id="c")
    assert noted == (await trail(actor="ana", newest_first=True))[0]
    assert (noted["causation_id"], noted["reason"], noted["occurred_at"]) == ("d", "why not", "2026-01-01T00:00:00Z")
    page = (await here.client.get("/v1/audit/trail", params={"conversation": trip, "limit": 3})).json()
    assert [each["event_type"] for each in await trail(conversation=trip, limit=3, after=page["next"])] == ["noted"]
    assert (await here.client.get(f"/v1/audit/trail?conversation={uuid4()}")).status_code == 404
    assert (await here.client.get(f"/v1/audit/trail?conversation={trip}&acts=true")).status_code == 422
    exported = await here.client.get("/v1/audit/trail/export", params={"conversation": trip, "format": "csv"})
    with ZipFile(BytesIO(exported.content)) as archive:
        assert archive.namelist() == ["trail.csv"], "nothing is sealed, so there is no proof"
        assert len(archive.read("trail.csv").splitlines()) == 5

    async def exported_types(**query: Any) -> list[str]:
        found = await here.client.get("/v1/audit/trail/export", params=query)
        with ZipFile(BytesIO(found.content)) as archive:
            return [json.loads(line)["event_type"] for line in archive.read("trail.jsonl").splitlines()]

    assert await exported_types(conversation=trip, limit=2) == everything[:2]
    assert await exported_types(conversation=trip, limit=2, after=2) == everything[2:]
    assert await exported_types(limit=9, after=noted["position"] - 1) == ["noted"]
    assert await exported_types(conversation=trip, after=2**63 - 2) == []
    causation = await here.client.get(f"/v1/conversations/{trip}/events/{noted['id']}/causation")
    assert [(each["depth"], each["id"]) for each in causation.json()["effects"]] == [(0, noted["id"])]


@pytest.mark.parametrize("range_header", ["bytes=2-1", "bytes=99999999-"])
async def test_an_export_that_cannot_be_sent_leaves_no_file(
    here: Served, range_header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trip = await here.begin()
    params, headers = {"conversation": trip}, {"Range": range_header}
    refused = await here.client.get("/v1/audit/trail/export", params=params, headers=headers)
    assert refused.status_code in (400, 416)
    gc.collect()
    assert [*os.scandir(tmp_path)] == []
    assert here.server_context.response_cache.spool.used == 0


async def test_the_trail_needs_the_scope_audit_and_users_see_their_own(protected: Served, people: People) -> None:
    ana = await people.person("acme", "ana", TokenScope.READ, TokenScope.WRITE, TokenScope.AUDIT)
    bob = await people.person("acme", "bob", TokenScope.READ, TokenScope.WRITE)
    auditor = await people.person("acme", None, TokenScope.AUDIT)
    trip = (await ana.post("/v1/conversations", {"name": "Trip"})).json()["id"]
    assert (await bob.get("/v1/audit/trail")).status_code == 403
    assert {each["conversation_id"] for each in (await ana.get("/v1/audit/trail")).json()["items"]} == {trip}
    assert (await ana.get("/v1/audit/trail?acts=true")).json()["items"] == []
    seen = (await auditor.get("/v1/audit/trail")).json()["items"]
    assert {each["conversation_id"] for each in seen} == {trip, str(ADMINISTRATION)}
    assert "eventstore.key_added" in {each["event_type"] for each in seen}


async def test_reading_the_trail_is_recorded_if_that_is_set(
    protected: Served, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor = await people.person("acme", None, TokenScope.READ, TokenScope.AUDIT)

    async def readings() -> list[dict[str, Any]]:
        acts = await auditor.get("/v1/audit/trail?type=eventstore.trail_read")
        return [{"actor": each["actor"], **each["content"]} for each in acts.json()["items"]]

    assert await readings() == []
    context = protected.server_context
    monkeypatch.setattr(context, "settings", context.settings.model_copy(update={"audit_reads": True}))
    await auditor.get("/v1/conversations")
    await auditor.get("/v1/log?actor=ana")
    actor = await readings()
    assert [(each["what"], each["query"]) for each in actor] == [
        ("/v1/log", "actor=ana"), ("/v1/audit/trail", "type=eventstore.trail_read"),
    ]  # fmt: skip
    assert all(each["actor"].startswith("key:") for each in actor)
