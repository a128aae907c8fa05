"""Appends and reads agree with a log kept in a few Python lists, whatever is done in whatever order."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples
from support.logmodel import CONVERSATIONS, Model, Stored, appends, found_shape, repeats

from eventstore import Append, AppendResult, EventStore

queries = st.fixed_dictionaries(
    {"backwards": st.booleans(), "limit": st.none() | st.integers(0, 6), "after": st.integers(0, 6)},
    optional={"types": st.lists(st.sampled_from(["red", "blue", "green"])), "actor": st.sampled_from(["", "ana"])},
)


def _select(stored: list[Stored], query: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = [
        s
        for s in stored
        if ("types" not in query or s.event.data.event_type in query["types"])
        and ("actor" not in query or s.event.actor == query["actor"])
    ]
    return [s.key for s in (found[::-1] if query["backwards"] else found)][: query["limit"]]


async def _found(events: Any) -> list[tuple[Any, ...]]:
    return [(e.conversation_id, e.version, e.id, *found_shape(e)) async for e in events]


@examples(80)
@given(steps=st.lists(appends | repeats, min_size=1, max_size=10), questions=st.lists(queries, max_size=4))
async def test_the_log_behaves_like_a_list(
    store: EventStore, steps: list[list[Append] | int], questions: list[dict[str, Any]]
) -> None:
    model, tenant = Model(), uuid4().hex
    done: list[list[Append]] = []
    positions: list[int] = []
    for step in steps:
        if isinstance(step, int):
            if not done:
                continue
            step = done[step % len(done)]
        done.append(step)
        expected = model.append(step)
        if isinstance(expected, type):
            with pytest.raises(expected):
                await store.append_all(step, tenant=tenant)
        else:
            result = await store.append_all(step, tenant=tenant)
            assert [(one.version, one.is_new) for one in result.events] == expected
            positions += [one.position for one in result.events if one.is_new]

    assert positions == sorted(set(positions))
    assert [event.position async for event in store.read_log(tenant=tenant)] == positions
    assert await _found(store.read_log(tenant=tenant)) == [stored.key for stored in model.log]
    for query in questions:
        after = query["after"]
        for conversation in CONVERSATIONS:
            mine = model.conversation(conversation)[after:]
            assert await _found(store.read(conversation, tenant=tenant, **query)) == _select(mine, query)
        start = positions[min(after, len(positions)) - 1] if after and positions else 0
        selected = _select(model.log[after:] if start else model.log, query)
        assert await _found(store.read_log(tenant=tenant, **(query | {"after": start}))) == selected


@examples(80)
@given(
    rounds=st.lists(
        st.lists(st.tuples(appends | repeats, st.integers(0, 1)), min_size=1, max_size=12), min_size=1, max_size=4
    )
)
async def test_appends_at_the_same_time_do_what_they_would_do_one_after_another(
    store: EventStore, rounds: list[list[tuple[list[Append] | int, int]]]
) -> None:
    tenants = [uuid4().hex, uuid4().hex]
    models = [Model(), Model()]
    done: list[list[Append]] = []
    for together in rounds:
        sent = []
        expected = []
        for step, scope in together:
            if isinstance(step, int):
                if not done:
                    continue
                step = done[step % len(done)]
            done.append(step)
            expected.append(models[scope].append(step))
            sent.append(store.append_all(step, tenant=tenants[scope]))
        results = await asyncio.gather(*sent, return_exceptions=True)
        for result, wanted in zip(results, expected, strict=True):
            if isinstance(wanted, type):
                assert isinstance(result, wanted)
            else:
                assert isinstance(result, AppendResult), result
                assert [(one.version, one.is_new) for one in result.events] == wanted
    for tenant, model in zip(tenants, models, strict=True):
        for conversation in CONVERSATIONS:
            stored = [one.key for one in model.conversation(conversation)]
            assert await _found(store.read(conversation, tenant=tenant)) == stored
