"""A log in memory, which behaves as one on a server does."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent_manager.accepted_messages import Key
from agent_manager.conversation_fold import ConversationFold
from agent_manager.storage import LISTED, PAGE, LeaseStatus, Log, appended_event
from eventstore import (
    ANY,
    Append,
    Appended,
    AppendResult,
    Caller,
    Event,
    ExpectedVersion,
    MessageAdded,
    NewEvent,
    Settings,
)
from eventstore.append import AppendRequest, encode_expected
from eventstore.errors import ConversationIsDeleted, EventIdConflict, WrongExpectedVersion
from eventstore.json_text import from_json, json_equal, to_json
from eventstore.member_order import MEMBER
from eventstore.scope import checked_tenant

_UNLISTED = ("agent.registered", "agent.unregistered", "a2a.home", "a2a.push_notification")
"""Types of the events of conversations that no list has, as in projections/conversations.sql."""
_EXISTS = encode_expected("EXISTS")
_ACCEPTED_WHEN_DELETED = ("conversation.reactivated", "conversation.unshared", "message.answered")
"""The same types as in the SQL function deleted_conversation_accepts, except for receipts of erasures."""


class MemoryLog(Log):
    """A log in memory, with the same checks and results as on a server. It is lost when the process ends."""

    def __init__(self, tenant: str = "default", max_content_bytes: int | None = None) -> None:
        self.tenant = checked_tenant(tenant)
        self._limit = max_content_bytes or Settings.model_fields["max_content_bytes"].default
        self._events: list[Event] = []
        self._events_of: dict[UUID, list[Event]] = {}
        self._folds: dict[UUID, ConversationFold] = {}
        self._by_id: dict[Key, Event] = {}
        self._leases: dict[Key, UUID] = {}

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        # Rejects what a server rejects.
        AppendRequest(Caller(self.tenant), [Append(conversation_id, events, expected)], self._limit).encode()
        stored = [self._by_id.get((conversation_id, event.id)) for event in events]
        new = [event for event, before in zip(events, stored, strict=True) if before is None]
        for event, before in zip(events, stored, strict=True):
            if before is not None and (differences := _differences(before, event)):
                raise EventIdConflict(conversation_id, event.id, differences)
        if new:
            self._check(conversation_id, new, expected)
        return AppendResult(
            [
                self._add(conversation_id, event)
                if before is None
                else Appended(
                    conversation_id, before.id, before.position, before.version, before.timestamp, is_new=False
                )
                for event, before in zip(events, stored, strict=True)
            ]
        )

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        return [
            event
            for conversation_id, version in versions.items()
            for event in self._events_of.get(conversation_id, [])[version : version + limit]
        ]

    async def conversations(self) -> dict[UUID, int]:
        return {each: len(events) for each, events in self._events_of.items() if events[0].event_type not in _UNLISTED}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        return {each: fold.version for each, fold in self._folds.items() if fold.tasks}

    async def pending(self) -> set[Key]:
        return {
            (fold.id, each) for fold in self._folds.values() for each in fold.requests.keys() - fold.outcomes.keys()
        }

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        listed = [event for event in self._events[after:] if event.event_type in LISTED]
        return listed if limit is None else listed[max(0, len(listed) - limit) :]

    async def position(self) -> int:
        return len(self._events)

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        # Leases do not expire, because no holder outlives the log or ends before it.
        return {
            key: LeaseStatus(self._leases.setdefault(key, holder), None, len(self._events_of.get(key[0], ())))
            for key in keys
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        return {key for key in keys if self._leases.get(key) == holder}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        for key in await self.renew_leases(keys, holder, 0):
            del self._leases[key]

    def _check(self, conversation_id: UUID, new: Sequence[NewEvent], expected: ExpectedVersion) -> None:
        fold = self._folds.get(conversation_id)
        version, is_deleted = (0, False) if fold is None else (fold.version, fold.is_deleted)
        for event_type in (event.data.event_type for event in new):
            if is_deleted and event_type not in _ACCEPTED_WHEN_DELETED:
                raise ConversationIsDeleted(conversation_id)
            is_deleted = event_type == "conversation.deleted" or (
                is_deleted and event_type != "conversation.reactivated"
            )
        wanted = encode_expected(expected)
        if (wanted >= 0 and wanted != version) or (wanted == _EXISTS and version == 0):
            raise WrongExpectedVersion(conversation_id, expected, version)

    def _add(self, conversation_id: UUID, event: NewEvent) -> Appended:
        events = self._events_of.setdefault(conversation_id, [])
        now = datetime.now(UTC)
        place = Appended(conversation_id, event.id, len(self._events) + 1, len(events) + 1, now, is_new=True)
        stored = appended_event(self.tenant, event, place)
        self._events.append(stored)
        events.append(stored)
        self._by_id[conversation_id, event.id] = stored
        self._folds.setdefault(conversation_id, ConversationFold(conversation_id)).apply(stored)
        return place


def _differences(stored: Event, event: NewEvent) -> str:
    """Return the members in which two events of one id differ, as the server's function ``event_differences`` does."""
    stored_metadata = _without((MEMBER, "traceparent"), stored.raw_metadata)
    metadata = _without((MEMBER, "traceparent"), from_json(to_json(event.metadata.to_content(), "metadata")))
    stored_content, content = stored.content, from_json(to_json(event.data.to_content(), "content"))
    if isinstance(event.data, MessageAdded):
        stored_content, content = _without(("sent_order",), stored_content), _without(("sent_order",), content)
    pairs = {
        "event_type": (stored.event_type, event.data.event_type),
        "schema_version": (stored.schema_version, event.schema_version),
        "actor": (stored.actor, event.actor),
        "content": (stored_content, content),
    }
    for key in sorted(stored_metadata.keys() | metadata.keys()):
        pairs[f"metadata.{key}"] = (stored_metadata.get(key), metadata.get(key))
    return ", ".join(name for name, (before, now) in pairs.items() if not json_equal(before, now))


def _without(names: Sequence[str], members: Any) -> Any:
    if not isinstance(members, dict):
        return members
    return {key: value for key, value in members.items() if key not in names}
