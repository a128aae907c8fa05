"""A page is read along the index of its order, and costs the same however long the tables are and however far it is.

With statistics and without, by custom and by generic plans: the server may choose any of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from support.longtables import OF_CONVERSATION, conversation, fill, time_of
from support.plans import Kind, Plan, explain
from support.scoped_queries import open_as, set_role, set_scope
from support.servers import DatabaseServer

from projections.pages import (
    ALL_MESSAGES,
    ALL_TASKS,
    ALL_TASKS_IN_STATUS,
    CONVERSATIONS,
    CONVERSATIONS_OF_ACTOR,
    MESSAGES,
    TASKS,
    Listing,
)
from projections.read_your_writes import at_least_text

SHORT, LONG = 4_000, 40_000
LIMIT = 50

every_plan = pytest.mark.parametrize(
    "kind",
    [
        pytest.param("force_custom_plan", id="custom"),
        pytest.param("force_generic_plan", id="generic", marks=pytest.mark.slow),
    ],
)
both_tables = pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "analyzed"])
both_ways = pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])


@dataclass(frozen=True)
class Case:
    """A list, what is asked of it, and the index that its pages go along.

    Where the tenant has most of the rows, the index of the times alone is as good, and the planner may know.
    """

    listing: Listing[Any]
    index: str | tuple[str, ...]
    asked: Mapping[str, Any]

    @property
    def indexes(self) -> set[str]:
        """The indexes; one of them is enough."""
        return {self.index} if isinstance(self.index, str) else set(self.index)

    @property
    def slack(self) -> int:
        """Buffers by which pages may differ: indexes are taller, and rows of deleted conversations are passed over.

        Whether its conversation is deleted is looked up for each row of a message or task.
        """
        return 12 if self.listing.kind.startswith("conversations") or "deleted" not in self.asked else 12 + 4 * LIMIT

    def statement(self, size: int, *, newest_first: bool, begun: bool) -> tuple[str, dict[str, Any]]:
        """Return the statement of a page from the middle of the list, or of the first."""
        places = {datetime: time_of(size // 2), UUID: conversation(size // 2), int: size // 2}
        place = [places[kind] for kind in self.listing.types] if begun else None
        asked = {"tenant": "default"} | self.asked
        return self.listing.statement(asked, place, newest_first=newest_first, limit=LIMIT)


LONG_ONE = {"conversation_id": conversation(0)}
BY_TIME = ("idx_messages_pages", "idx_messages_created_at")
CASES = {
    "conversations by update": Case(
        CONVERSATIONS["updated"], ("idx_conversations_pages_by_update", "idx_conversations_updated_at"),
        {"deleted": False},
    ),
    "conversations": Case(
        CONVERSATIONS["created"], "idx_conversations_pages", {"deleted": False, "active": True}
    ),
    "conversations in time": Case(
        CONVERSATIONS["created"], "idx_conversations_pages",
        {"since": time_of(100), "until": time_of(10**7)},
    ),
    "an agent's by update": Case(
        CONVERSATIONS_OF_ACTOR["updated"], "idx_conversation_actors_pages_by_update", {"actor": "agent"}
    ),
    "a user's": Case(
        CONVERSATIONS_OF_ACTOR["created"], "idx_conversation_actors_pages", {"actor": "user-8", "deleted": False}
    ),
    "messages of a conversation": Case(MESSAGES, "idx_messages_conversation_id", LONG_ONE | {"role": "user"}),
    "messages": Case(ALL_MESSAGES, BY_TIME, {"role": "user", "deleted": False}),
    "messages in time": Case(ALL_MESSAGES, BY_TIME, {"since": time_of(100), "until": time_of(10**7)}),
    "tasks of a conversation": Case(TASKS, "idx_tasks_pages_of_conversation", LONG_ONE),
    "tasks": Case(ALL_TASKS, "idx_tasks_pages", {"deleted": False}),
    "tasks in a status": Case(ALL_TASKS_IN_STATUS, "idx_tasks_pages_by_status", {"status": "failed", "deleted": False}),
}  # fmt: skip
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@pytest.fixture(scope="module")
def urls(server: DatabaseServer) -> Iterator[dict[tuple[int, bool], str]]:
    """Databases with tables of several lengths, with statistics and without."""
    with ExitStack() as stack:
        made = {}
        for size in (SHORT, LONG):
            for analyzed in (False, True):
                name = server.create_database()
                stack.callback(server.drop_database, name)
                made[size, analyzed] = server.url(name)
                fill(made[size, analyzed], size, analyzed=analyzed)
        yield made


def plan(url: str, text: str, parameters: Mapping[str, Any], kind: Kind) -> Plan:
    with open_as(url, "eventstore_reader") as connection:
        return explain(set_scope(connection, "default"), text, parameters, kind=kind)


@every_plan
@both_tables
@both_ways
@every_case
def test_a_page_is_read_along_the_index_of_its_order(
    urls: dict[tuple[int, bool], str], case: Case, newest_first: bool, analyzed: bool, kind: Kind
) -> None:
    plans = {}
    for size in (SHORT, LONG):
        for begun in (False, True):
            text, parameters = case.statement(size, newest_first=newest_first, begun=begun)
            plans[size, begun] = plan(urls[size, analyzed], text, parameters, kind)
    for begun in (False, True):
        long = plans[LONG, begun]
        assert case.indexes & long.indexes, long.text
        assert "Seq Scan" not in long.kinds, long.text
        assert long.rows > 0
        assert long.buffers <= 1.2 * plans[SHORT, begun].buffers + case.slack, (plans[SHORT, begun].text, long.text)
        assert long.filtered <= 5 * LIMIT, long.text
    assert plans[LONG, True].buffers <= 1.2 * plans[LONG, False].buffers + case.slack, plans[LONG, True].text


MEMBERSHIPS = 20
_ADD_MEMBER = """
INSERT INTO conversation_members (tenant_id, conversation_id, user_id, access)
SELECT 'default', c.id, 'ana', 'own' FROM conversations c WHERE c.tenant_id = 'default' ORDER BY c.id DESC LIMIT %s
"""


@every_plan
@both_tables
@both_ways
@pytest.mark.parametrize("name", ["conversations by update", "conversations", "messages", "tasks", "tasks in a status"])
def test_a_member_of_few_conversations_reads_their_rows_and_no_others(
    urls: dict[tuple[int, bool], str], name: str, newest_first: bool, analyzed: bool, kind: Kind
) -> None:
    case = CASES[name]
    asked = {"tenant": "default"} | case.asked
    text, parameters = case.listing.statement(asked, None, newest_first=newest_first, limit=LIMIT, of_member=True)
    url = urls[LONG, analyzed]
    with psycopg.connect(url) as owner:
        set_role(owner, "eventstore_owner").execute(_ADD_MEMBER, (MEMBERSHIPS,))
        set_role(set_scope(owner, "default", "ana"), "eventstore_reader")
        found = explain(owner, text, parameters, kind=kind)
        owner.rollback()
    assert "Seq Scan" not in found.kinds, found.text
    assert found.buffers < 1000, found.text
    assert found.filtered <= MEMBERSHIPS * OF_CONVERSATION, found.text


@every_plan
@both_tables
def test_waiting_for_a_position_keeps_the_plan_of_the_page(
    urls: dict[tuple[int, bool], str], analyzed: bool, kind: Kind
) -> None:
    case = CASES["messages of a conversation"]
    page, parameters = case.statement(LONG, newest_first=False, begun=True)
    asked = parameters | {"projections": ["messages"], "at_least": 0}
    found = plan(urls[LONG, analyzed], at_least_text(page), asked, kind)
    assert case.indexes & found.indexes, found.text
    assert found.rows == LIMIT
    assert found.buffers <= plan(urls[LONG, analyzed], page, parameters, kind).buffers + 8, found.text


@pytest.fixture(scope="module")
def url_of_one_tenant(server: DatabaseServer) -> Iterator[str]:
    """A database whose long tables belong to one tenant, with statistics."""
    name = server.create_database()
    url = server.url(name)
    fill(url, LONG, analyzed=False)
    with open_as(url, "eventstore_owner") as owner:
        owner.execute("DELETE FROM conversation_actors WHERE tenant_id <> 'default'")
        for table in ("conversations", "messages", "tasks"):
            owner.execute(f"UPDATE {table} SET tenant_id = 'default' WHERE tenant_id <> 'default'".encode())
        owner.execute("ANALYZE")
    yield url
    server.drop_database(name)


_OF_A_RARE_VALUE = {"tasks in a status", "a user's"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in _OF_A_RARE_VALUE])
def test_a_page_is_not_planned_again_for_each_call(url_of_one_tenant: str, name: str) -> None:
    """The server keeps one plan for all values unless it expects a plan for these values to be cheaper."""
    text, parameters = CASES[name].statement(LONG, newest_first=True, begun=False)
    kinds: tuple[Kind, Kind] = ("force_generic_plan", "force_custom_plan")
    kept, made = (plan(url_of_one_tenant, text, parameters, kind).root["Total Cost"] for kind in kinds)
    assert kept <= 1.005 * made
