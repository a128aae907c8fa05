"""``eventstore retention`` and ``eventstore hold``."""

from __future__ import annotations

import json
import re

import pytest
from support.commandline import Eventstore, rows_of

from eventstore import MessageAdded, Settings, SyncEventStore
from projections import catch_up

pytestmark = [pytest.mark.shared_database, pytest.mark.usefixtures("no_tenants")]


@pytest.fixture
def filled(empty: Eventstore, settings: Settings) -> Eventstore:
    """The command line, on a store with one conversation."""
    with SyncEventStore(settings) as store:
        store.append("11111111-1111-4111-8111-111111111111", [MessageAdded(role="user", content="hello")], user="ana")
        store.portal.call(catch_up(store.asynchronous))
    return empty


def test_a_rule_is_added_tried_applied_and_removed(filled: Eventstore) -> None:
    assert "nothing is erased by age" in filled("retention", "list").err
    added = filled("retention", "add", "1m", "--since", "creation", "--owner", "ana", "--reason", "policy 7")
    assert re.fullmatch(r"rule [-0-9a-f]{36} added\n", added.out)
    [rule] = rows_of(filled, "retention", "list")
    assert (rule["age_seconds"], rule["since"], rule["user"], rule["reason"]) == (60, "creation", "ana", "policy 7")
    assert filled("retention", "list").lines[0].split() == [
        "id", "age", "since", "state", "owner", "metadata", "applied", "reason",
    ]  # fmt: skip
    tried = json.loads(filled("retention", "run", "--dry-run", "--json").out)
    assert tried["dry_run"] is True
    assert [each["conversations"] for each in tried["tenants"][0]["rules"]] == [0]
    assert filled("retention", "run").lines[1].split()[1:] == [rule["id"], "0", "0", "0", "0", "0"]
    assert filled("retention", "remove", rule["id"]).out == f"rule {rule['id']} removed\n"
    assert "retention list" in filled("retention", "remove", rule["id"]).err


def test_wrong_rules_are_refused_with_the_option(empty: Eventstore) -> None:
    assert "AGE soon: is not a duration: write it as 30m, 12h, 90d, 4w\n" in empty("retention", "add", "soon").err
    assert "--metadata: is not valid JSON" in empty("retention", "add", "1d", "--metadata", "{").err
    assert "--metadata: is not an object" in empty("retention", "add", "1d", "--metadata", "[]").err


def test_holds_are_added_listed_and_removed(filled: Eventstore) -> None:
    assert "hold add user USER --reason TEXT places one" in filled("hold", "list").err
    placed = filled("hold", "add", "conversation", "1111", "--reason", "case 4711", "--actor", "counsel").out
    assert placed.endswith(" placed on conversation 11111111-1111-4111-8111-111111111111\n")
    assert filled("hold", "add", "user", "ana", "--reason", "case").out.endswith("placed on user ana\n")
    assert filled("hold", "add", "tenant", "--reason", "audit").out.endswith("placed on the whole tenant\n")
    first, *others = rows_of(filled, "hold", "list")
    assert (first["reason"], first["placed_by"]) == ("case 4711", "counsel")
    refused = filled("erase", "conversation", "1111", "--yes")
    assert (refused.code, first["id"] in refused.err, "case 4711" in refused.err) == (1, True, True)
    for each in (first, *others):
        assert filled("hold", "remove", each["id"], "--reason", "closed").out.endswith("released\n")
    assert filled("erase", "conversation", "1111", "--yes").code == 0


def test_wrong_holds_are_refused(empty: Eventstore) -> None:
    assert empty("hold", "add", "user", "--reason", "case").code == 2
    assert empty("hold", "add", "tenant", "acme", "--reason", "case").code == 2
    assert "reason: is empty" in empty("hold", "add", "user", "ana").err
    assert "no conversation has the id 'trip'" in empty("hold", "add", "conversation", "trip", "--reason", "case").err
