"""The state of retention rules and legal holds, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent_manager.retention.holds import PACKAGE
from eventstore import EventStore
from eventstore.database.queries import query


@dataclass(frozen=True, slots=True)
class RetentionState:
    """The retention rules and legal holds of all tenants, and what the last run of each rule did.

    Attributes:
        rules: the number of rules.
        tenants: that have rules.
        waits_since: when the rule that has waited longest was last applied, or was added; None without rules.
        conversations: the number that the last runs erased.
        held, skipped, failed: the numbers that they did not erase, see :class:`agent_manager.retention.RuleResult`.
        holds: the number of legal holds in force.
    """

    rules: int
    tenants: int
    waits_since: datetime | None
    conversations: int
    held: int
    skipped: int
    failed: int
    holds: int


async def read_retention(store: EventStore) -> RetentionState:
    """Return the state of the rules and holds of all tenants, or of the one that the login is bound to."""
    [row] = await store.pool.fetch(query(PACKAGE, "retention_state"))
    return RetentionState(*row)
