"""Rules by which conversations are erased when they are old enough (``db/schema/retention/retention_rules.sql``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from agent_manager.a2a import Json
from agent_manager.retention.holds import PACKAGE, change, check_reason
from eventstore import EventStore
from eventstore.database.queries import query
from eventstore.errors import InputError, NotFound
from eventstore.scope import Caller

Since: TypeAlias = Literal["last_event", "creation"]
State: TypeAlias = Literal["active", "archived", "deleted"]
MAX_AGE = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by which the conversations of a tenant that match all its conditions are erased.

    Attributes:
        age: how old they must be.
        since: the event from which the age counts: the last one of the conversation, or the first one.
        state: only conversations in this state; None for any.
        user: only conversations that this user owns; None for any.
        metadata: only conversations whose metadata contain these; None for any.
        applied_at: when the last run began that applied the rule; None before the first one.
        outcome: the counts of that run, as in :class:`RuleResult`.
    """

    id: UUID
    age: timedelta
    since: Since
    state: State | None
    user: str | None
    metadata: Json | None
    reason: str
    added_by: str
    added_at: datetime
    applied_at: datetime | None
    outcome: dict[str, int] | None


class Rules:
    """The retention rules of a tenant.

    Args:
        tenant: the store's own if left out.
    """

    def __init__(self, store: EventStore, tenant: str | None = None) -> None:
        self._store = store
        self._caller = store.caller(tenant)

    async def add(
        self,
        age: timedelta,
        *,
        since: Since = "last_event",
        state: State | None = None,
        user: str | None = None,
        metadata: Json | None = None,
        reason: str = "",
        actor: str = "",
        rule_id: UUID | None = None,
    ) -> Rule:
        """Add a rule, which the next run applies.

        Args:
            rule_id: its id, with which the call can be repeated; a new one by default.

        Raises:
            InputError: the age is not between zero and a hundred years, or another value is not one of those above.
        """
        if not timedelta(0) < age <= MAX_AGE:
            raise InputError(f"age: {age} is not valid: give more than zero and at most a hundred years")
        for name, value, known in (
            ("since", since, ("last_event", "creation")),
            ("state", state, (None, "active", "archived", "deleted")),
        ):
            if value not in known:
                raise InputError(f"{name}: {value!r:.80} is unknown: give one of {', '.join(filter(None, known))}")
        if user is not None:
            Caller(self._caller.tenant, user)  # checks the name
        if metadata is not None and not isinstance(metadata, dict):
            raise InputError("metadata: expected an object with the members that a conversation must have")
        check_reason(reason)
        given = {
            "id": rule_id or uuid4(),
            "age": age,
            "since": since,
            "state": state,
            "user": user,
            "metadata": None if metadata is None else Jsonb(metadata),
            "reason": reason,
            "actor": actor,
        }
        return Rule(*(await change(self._store, self._caller, "add_rule", given))[0])

    async def remove(self, rule: UUID, *, actor: str = "") -> Rule:
        """Remove a rule, and return it. What it has erased stays erased.

        Raises:
            NotFound: the tenant has no such rule.
        """
        rows = await change(self._store, self._caller, "remove_rule", {"id": rule, "actor": actor})
        if not rows:
            raise NotFound(f"rule {rule} does not exist, or was removed: eventstore retention list shows the rules")
        return Rule(*rows[0])

    async def list(self) -> list[Rule]:
        """Return the rules, the oldest first."""
        parameters = {"tenant": self._caller.tenant}
        rows = await self._store.pool.fetch(query(PACKAGE, "rules"), parameters, caller=self._caller)
        return [Rule(*row) for row in rows]
