"""The responses to a caller do not depend on what others have: they are the same with and without other callers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4, uuid5

from hypothesis import given
from hypothesis import strategies as st
from support.callers import People, Person
from support.examples import examples
from support.serving import Served

from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationRenamed,
    ConversationShared,
    ConversationUnshared,
    EventData,
    EventStore,
    MessageAdded,
    TaskArtifactAdded,
    TaskCreated,
    TaskStatusChanged,
    conversation_uuid,
)

NAMES = ("main", "trip")
"""The names of conversations; each tenant has names of its own, and those of Bob begin with an ``o``."""
TEXTS = (
    "the trains to Lisbon were running late", "running a train", "os comboios para Lisboa estavam atrasados",
    "die Züge nach Lissabon", "los trenes llegaron tarde", "Lisbno is misspelt here", "correndo para o comboio",
    "xyzzy", "x", "",
)  # fmt: skip
QUERIES = (
    "Lisbon", "lisbno", "Lisbom", "running", "runing", "comboio", "corrend", "Züge", "trenes", "trans", "xyzzi",
    '"to Lisbon"', "li*", "-late train", "train or comboios",
)  # fmt: skip
KINDS = ("say", "say", "say", "ask", "task", "done", "rename", "archive", "delete", "lend")
LISTS = (
    "/v1/conversations", "/v1/conversations?deleted=true&by=created", "/v1/conversations?actor=ana", "/v1/messages",
    "/v1/messages?role=user&newest_first=true&limit=2", "/v1/tasks", "/v1/tasks?status=completed", "/v1/log",
    "/v1/log?limit=2", "/v1/log?after=3&actor=ana", "/v1/statistics", "/v1/statistics?actor=ana", "/v1/pending",
    "/v1/agents",
)  # fmt: skip
OF_ONE = ("", "/messages", "/tasks", "/events", "/state", "/state?version=1", "/members")
OF_THE_DEMO = ("/conversation/list", "/message/pending", "/events/get", "/task/list")


class Step(NamedTuple):
    """Something that a user does in one of their conversations."""

    name: str
    kind: str
    text: str


HISTORIES = st.lists(
    st.builds(Step, st.sampled_from(NAMES), st.sampled_from(KINDS), st.sampled_from(TEXTS)), max_size=8
)


def events_of(step: Step, conversation: UUID) -> list[EventData]:
    """Return the events of a step."""
    task = uuid5(conversation, "task")
    match step.kind:
        case "say" | "ask":
            return [MessageAdded(role="user", content=step.text, awaits_answer=step.kind == "ask")]
        case "task":
            part = {"kind": "text", "text": step.text}
            return [
                TaskCreated(task_id=task, description=step.text),
                TaskArtifactAdded(task_id=task, artifact_id="a", parts=[part]),
            ]
        case "done":
            return [TaskStatusChanged(task_id=task, status="completed")]
        case "rename":
            return [ConversationRenamed(name=step.text)]
        case "archive":
            return [ConversationArchived()]
        case "delete":
            return [ConversationDeleted()]
    return [ConversationShared(user="ana", access="write"), ConversationUnshared(user="ana")]


async def live(store: EventStore, tenant: str, user: str | None, steps: Sequence[Step], prefix: str = "") -> int:
    """Does it all; gives the position of the last event."""
    position = 0
    begun: set[UUID] = set()
    deleted: set[UUID] = set()
    for step in steps:
        name = prefix + step.name
        conversation = conversation_uuid(tenant, name)
        events = events_of(step, conversation)
        if conversation in deleted:
            continue
        if step.kind == "delete":
            deleted.add(conversation)
        if conversation not in begun:
            events.insert(0, ConversationCreated(given_id=name))
            begun.add(conversation)
        done = await store.append(conversation, events, actor=user or "", tenant=tenant, user=user)
        position = done.position
    return position


async def responses_to(person: Person, queries: Sequence[str]) -> dict[str, Any]:
    """Return the responses to a caller, tags and other headers included."""
    reads = [("GET", path) for path in LISTS]
    reads += [("GET", f"/v1/conversations/{p}{name}{of}") for p in ("", "o") for name in NAMES for of in OF_ONE]
    reads += [("GET", f"/v1/search?q={query}&by={by}&limit=1000") for query in queries for by in ("relevance", "time")]
    reads += [("POST", path) for path in OF_THE_DEMO]

    at_a_time = asyncio.Semaphore(8)

    async def answered(method: str, path: str) -> Any:
        async with at_a_time:
            answer = await person.client.request(method, path, headers={"X-Request-ID": "the-same"})
        assert answer.status_code in (200, 404), (path, answer.text)
        headers = {name: value for name, value in answer.headers.items() if name != "date"}
        return answer.status_code, headers, answer.text

    answers = await asyncio.gather(*(answered(*read) for read in reads))
    return {" ".join(read): answer for read, answer in zip(reads, answers, strict=True)}


async def caught_up(person: Person, position: int) -> None:
    """Once all tables hold the position."""
    for path in ("/v1/conversations?", "/v1/search?q=x&", "/v1/statistics?"):
        answer = await person.get(f"{path}at_least={position}")
        assert answer.status_code == 200, answer.text


@given(own=HISTORIES, of_bob=HISTORIES, of_others=HISTORIES, queries=st.lists(st.sampled_from(QUERIES), max_size=2))
@examples(5)
async def test_what_a_user_sees_does_not_depend_on_the_data_of_others(
    protected: Served,
    people: People,
    own: list[Step],
    of_bob: list[Step],
    of_others: list[Step],
    queries: list[str],
) -> None:
    tenant, other = f"acme-{uuid4()}", f"globex-{uuid4()}"
    ana, service = await people.person(tenant, "ana"), await people.person(tenant, None)
    await caught_up(ana, await live(protected.store, tenant, "ana", [step for step in own if step.kind != "lend"]))
    alone, tenant_alone = await responses_to(ana, queries), await responses_to(service, queries)

    await caught_up(ana, await live(protected.store, other, None, of_others))
    assert await responses_to(service, queries) == tenant_alone, "another tenant"

    await caught_up(ana, await live(protected.store, tenant, "bob", of_bob, "o"))
    assert await responses_to(ana, queries) == alone, "another tenant, or another user"
