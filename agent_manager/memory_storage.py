"""A log in memory, with the same checks and results as on a server. It is lost when the process ends."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent_manager.conversation import ConversationFold
from agent_manager.storage import LISTED, PAGE, Key, LeaseStatus, PendingRow, appended_event
from eventstore import ANY, Append, Appended, AppendResult, Event, ExpectedVersion, MessageAdded, NewEvent, Settings
from eventstore.append import AppendRequest, encode_expected
from eventstore.errors import ConversationIsDeleted, EventIdConflict, WrongExpectedVersion
from eventstore.json_text import from_json, json_equal, to_json
from eventstore.member_order import MEMBER
from eventstore.scope import checked_tenant

_EXISTS = encode_expected("EXISTS")
_DELETED_CONVERSATION_ACCEPTS = ("conversation.reactivated", "conversation.unshared", "message.answered")
"""The same types as in the SQL function deleted_conversation_accepts."""


class MemoryLog:
    """The log of one tenant, see :class:`~agent_manager.storage.Log`."""

    def __init__(self, tenant: str = "default", max_content_bytes: int | None = None) -> None:
        self.tenant = checked_tenant(tenant)
        self.user = self.actor = ""
        self._limit = max_content_bytes or Settings.model_fields["max_content_bytes"].default
        self._events: list[Event] = []
        self._events_of: dict[UUID, list[Event]] = {}
        self._folds: dict[UUID, ConversationFold] = {}
        self._by_id: dict[Key, Event] = {}
        self._leases: dict[Key, UUID] = {}

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""
        # Rejects what a server rejects.
        AppendRequest(self.tenant, [Append(conversation_id, events, expected)], self._limit).encode()
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
        """Return, of each of these conversations, at most ``limit`` events after its version."""
        return [
            event
            for conversation_id, version in versions.items()
            for event in self._events_of.get(conversation_id, [])[version : version + limit]
        ]

    async def conversations(self) -> dict[UUID, int]:
        """Return the versions of the conversations, in the order in which they began."""
        return {
            each: len(events)
            for each, events in self._events_of.items()
            if events[0].event_type not in ("agent.registered", "agent.unregistered")
        }

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Return the versions of the conversations that have tasks."""
        return {each: fold.version for each, fold in self._folds.items() if fold.tasks}

    async def pending(self) -> list[PendingRow]:
        """Return the messages that await an answer, oldest first."""
        rows = [
            PendingRow(fold.id, event_id, request.message_id, request.sent_at, request.position)
            for fold in self._folds.values()
            for event_id, request in fold.requests.items()
            if event_id not in fold.outcomes
        ]
        return sorted(rows, key=lambda row: row.position)

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """Return the latest of the listed events after a position, oldest first."""
        listed = [event for event in self._events[after:] if event.event_type in LISTED]
        return listed if limit is None else listed[max(0, len(listed) - limit) :]

    async def position(self) -> int:
        """Return the position of the last event."""
        return len(self._events)

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages that nobody else holds; return the status of all.

        They do not expire, because no holder outlives the log or ends before it.
        """
        return {
            key: LeaseStatus(self._leases.setdefault(key, holder), None, len(self._events_of.get(key[0], ())))
            for key in keys
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""
        return {key for key in keys if self._leases.get(key) == holder}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases that the holder has."""
        for key in await self.renew_leases(keys, holder, 0):
            del self._leases[key]

    def _check(self, conversation_id: UUID, new: Sequence[NewEvent], expected: ExpectedVersion) -> None:
        fold = self._folds.get(conversation_id)
        version, is_deleted = (0, False) if fold is None else (fold.version, fold.is_deleted)
        for event_type in (event.data.event_type for event in new):
            if is_deleted and event_type not in _DELETED_CONVERSATION_ACCEPTS:
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
    stored_metadata = _without(MEMBER, stored.raw_metadata)
    metadata = _without(MEMBER, from_json(to_json(event.metadata.to_content(), "metadata")))
    stored_content, content = stored.content, from_json(to_json(event.data.to_content(), "content"))
    if isinstance(event.data, MessageAdded):
        stored_content, content = _without("sent_order", stored_content), _without("sent_order", content)
    pairs = {
        "event_type": (stored.event_type, event.data.event_type),
        "schema_version": (stored.schema_version, event.schema_version),
        "actor": (stored.actor, event.actor),
        "content": (stored_content, content),
    }
    for key in sorted(stored_metadata.keys() | metadata.keys()):
        pairs[f"metadata.{key}"] = (stored_metadata.get(key), metadata.get(key))
    return ", ".join(name for name, (before, now) in pairs.items() if not json_equal(before, now))


def _without(name: str, members: Any) -> Any:
    return {key: value for key, value in members.items() if key != name} if isinstance(members, dict) else members
