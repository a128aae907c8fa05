"""Retention rules: a run erases exactly the conversations that match, and says what it did."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.retention import recorded

from agent_manager.retention import Holds, RuleResult, Rules, apply_rules
from eventstore import (
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    EventData,
    EventStore,
    MessageAdded,
    Metadata,
    NewEvent,
)
from eventstore.errors import InputError, InvalidEvent, NotFound
from projections import catch_up

pytestmark = pytest.mark.shared_database

DAY = timedelta(days=1)


async def begin(
    store: EventStore, *ages: float, events: Sequence[EventData] = (), user: str | None = None, **created: Any
) -> UUID:
    """Begin a conversation, and add a message for each age in days, and further events at the last one."""
    conversation = uuid4()
    data = [
        (ages[0], ConversationCreated(**created)),
        *((age, MessageAdded(role="user", content=f"{age} days old")) for age in ages),
        *((ages[-1], event) for event in events),
    ]
    now = datetime.now(UTC)
    new = [NewEvent(each, metadata=Metadata(occurred_at=now - age * DAY)) for age, each in data]
    await store.append(conversation, new, user=user)
    return conversation


async def erased(store: EventStore) -> set[UUID]:
    """Return the conversations of the tenant of which everything is erased."""
    statement = (
        "SELECT e.conversation_id FROM events e WHERE e.event_type NOT IN ('conversation.erased') "
        "AND e.conversation_id <> administration_id() GROUP BY 1 HAVING bool_and(e.salt IS NULL)"
    )
    return {row[0] for row in await store.log(store.caller()).fetch(statement)}


async def run(store: EventStore, **options: Any) -> list[RuleResult]:
    """Apply the rules of the tenant, and return what each did."""
    await catch_up(store)
    [result] = await apply_rules(store, store.tenant, **options)
    return result.rules


async def test_a_rule_erases_what_was_inactive_for_long_enough(store: EventStore) -> None:
    old, active = await begin(store, 100, 31), await begin(store, 100, 29)
    rule = await Rules(store).add(30 * DAY, reason="policy 7")
    assert await run(store, dry_run=True) == [RuleResult(rule.id, conversations=1, events=3)]
    assert await erased(store) == set()
    assert await run(store) == [RuleResult(rule.id, conversations=1, events=3)]
    assert await erased(store) == {old}
    receipt = [event async for event in store.read(old)][-1]
    assert (receipt.event_type, receipt.actor) == ("conversation.erased", "retention")
    assert receipt.content["reason"] == f"retention rule {rule.id}: policy 7"
    assert await run(store) == [RuleResult(rule.id)]
    await store.append(active, [MessageAdded(role="user", content="now")])


async def test_a_rule_may_count_from_the_creation(store: EventStore) -> None:
    old, _ = await begin(store, 31, 0), await begin(store, 29, 0)
    await Rules(store).add(30 * DAY, since="creation")
    await run(store)
    assert await erased(store) == {old}
    assert [each.conversations for each in await run(store)] == [0]


@pytest.mark.parametrize("state", ["active", "archived", "deleted"])
async def test_a_rule_may_be_for_a_state(store: EventStore, state: Any) -> None:
    by_state = {
        "active": await begin(store, 31),
        "archived": await begin(store, 31, events=[ConversationArchived()]),
        "deleted": await begin(store, 31, events=[ConversationDeleted()]),
    }
    await Rules(store).add(30 * DAY, state=state)
    await run(store)
    assert await erased(store) == {by_state[state]}


async def test_a_rule_may_be_for_an_owner_and_for_metadata(store: EventStore) -> None:
    match = await begin(store, 31, user="ana", metadata={"team": "sales", "region": "EU"})
    await begin(store, 31, user="bob", metadata={"team": "sales"})
    await begin(store, 31, user="ana", metadata={"team": "support"})
    await begin(store, 31, user="ana")
    await Rules(store).add(30 * DAY, user="ana", metadata={"team": "sales"})
    await run(store)
    assert await erased(store) == {match}


async def test_a_time_in_the_future_does_not_keep_a_conversation(store: EventStore) -> None:
    await begin(store, -10_000)
    await Rules(store).add(timedelta(microseconds=1))
    assert [each.conversations for each in await run(store)] == [1]


async def test_what_a_conversation_in_use_continues_is_in_use(store: EventStore) -> None:
    grandparent = await begin(store, 100)
    parent = (await store.fork(grandparent, events=[])).events[0].conversation_id
    await store.fork(parent)
    unused = await begin(store, 100)
    await Rules(store).add(30 * DAY)
    await run(store)
    assert await erased(store) == {unused}
    await Rules(store).add(30 * DAY, since="creation")
    await run(store)
    assert await erased(store) == {unused, grandparent}


async def test_a_conversation_that_is_continued_after_its_erasure_is_erased_again(store: EventStore) -> None:
    conversation = await begin(store, 31)
    await Rules(store).add(30 * DAY, since="creation")
    await run(store)
    await store.append(conversation, [MessageAdded(role="user", content="once more")])
    assert await erased(store) == set()
    await run(store)
    assert await erased(store) == {conversation}


async def test_a_conversation_that_somebody_continues_is_left_alone(store: EventStore) -> None:
    conversation = await begin(store, 31)
    rule = await Rules(store).add(30 * DAY)
    await catch_up(store)
    await store.append(conversation, [MessageAdded(role="user", content="wait, I am here")])
    [result] = await apply_rules(store, store.tenant)  # the read tables do not have the message yet
    assert result.rules == [RuleResult(rule.id, skipped=1)]
    assert await erased(store) == set()


async def test_a_hold_stops_a_rule_and_nothing_else(store: EventStore) -> None:
    held, other = await begin(store, 31), await begin(store, 31)
    rule = await Rules(store).add(30 * DAY)
    hold = await Holds(store).place(conversation_id=held, reason="case 4711")
    assert await run(store, dry_run=True) == [RuleResult(rule.id, conversations=1, events=2, held=1)]
    assert await run(store) == [RuleResult(rule.id, conversations=1, events=2, held=1)]
    assert await erased(store) == {other}
    await Holds(store).release(hold.id)
    assert await run(store) == [RuleResult(rule.id, conversations=1, events=2)]
    assert await erased(store) == {held, other}


async def test_changes_of_rules_and_runs_are_administrative_acts(store: EventStore) -> None:
    await begin(store, 31)
    rule = await Rules(store).add(30 * DAY, state="active", reason="policy 7", actor="dpo")
    assert await Rules(store).list() == [rule]
    await run(store, actor="cron")
    [applied] = await Rules(store).list()
    assert applied.applied_at is not None
    assert applied.applied_at > rule.added_at
    await Rules(store).remove(rule.id, actor="dpo")
    assert await Rules(store).list() == []
    counts = {"rule": str(rule.id), "conversations": 1, "events": 2, "held": 0, "skipped": 0, "failed": 0}
    assert await recorded(store) == [
        (
            "retention_rule_added",
            {
                "rule": str(rule.id),
                "age_seconds": 2_592_000,
                "since": "last_event",
                "state": "active",
                "reason": "policy 7",
            },
            "dpo",
        ),
        ("retention_run", {"rules": [counts], "files": 0, "file_bytes": 0}, "cron"),
        ("retention_rule_removed", {"rule": str(rule.id)}, "dpo"),
    ]


async def test_no_rule_erases_anything_of_another_tenant(store: EventStore, module_store: EventStore) -> None:
    other = f"{store.tenant}-other"
    await module_store.append(uuid4(), [MessageAdded(role="user", content="not yours")], tenant=other)
    await begin(store, 31)
    await Rules(store).add(timedelta(microseconds=1))
    assert [each.conversations for each in await run(store)] == [1]
    [(left,)] = await module_store.log(module_store.caller(other)).fetch(
        "SELECT count(*) FROM events WHERE salt IS NULL"
    )
    assert left == 0


async def test_wrong_values_are_refused(store: EventStore) -> None:
    rules = Rules(store)
    for age in (timedelta(0), -DAY, timedelta(days=40_000)):
        with pytest.raises(InputError, match="age"):
            await rules.add(age)
    with pytest.raises(InputError, match="since: 'update' is unknown: give one of last_event, creation"):
        await rules.add(DAY, since="update")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="state"):
        await rules.add(DAY, state="gone")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="metadata"):
        await rules.add(DAY, metadata=["team"])  # type: ignore[arg-type]
    with pytest.raises(InvalidEvent, match="user"):
        await rules.add(DAY, user="")
    with pytest.raises(InvalidEvent, match="reason"):
        await rules.add(DAY, reason="\0")
    with pytest.raises(NotFound, match="retention list"):
        await rules.remove(uuid4())
    assert await rules.list() == []
