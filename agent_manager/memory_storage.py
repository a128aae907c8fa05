"""A log in memory, gone when the process ends: the same checks and the same outcomes as on a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from agent_manager.conversation_cache import appended_event
from agent_manager.storage import LISTED, PAGE, Key, LeaseStatus, PendingRow
from eventstore import ANY, Append, Appended, AppendResult, Event, ExpectedVersion, MessageAdded, NewEvent, Settings
from eventstore.append import EncodedAppend, encode_expected
from eventstore.errors import ConversationIsDeleted, EventIdConflict, WrongExpectedVersion
from eventstore.json_text import equal, load, to_json
from eventstore.member_order import MEMBER
from eventstore.scope import checked_tenant

_EXISTS = encode_expected("EXISTS")
_AGENTS = ("agent.registered", "agent.unregistered")
_ACCEPTED_WHEN_DELETED = ("conversation.reactivated", "conversation.unshared", "message.answered")
"""As the SQL function accepted_when_deleted says."""


class MemoryLog:
    """The log of one tenant."""

    def __init__(self, tenant: str = "default", max_content_bytes: int | None = None) -> None:
        self.tenant = checked_tenant(tenant)
        self.user = self.actor = ""
        self._limit = max_content_bytes or Settings.model_fields["max_content_bytes"].default
        self._log: list[Event] = []
        self._conversations: dict[UUID, list[Event]] = {}
        self._by_id: dict[tuple[UUID, UUID], Event] = {}
        self._pending: dict[tuple[UUID, str], PendingRow] = {}
        self._leases: dict[Key, UUID] = {}
        self._deleted: set[UUID] = set()

    async def append(
        self, conversation_id: UUID, events: Sequence[NewEvent], expected: ExpectedVersion = ANY
    ) -> AppendResult:
        """See :meth:`eventstore.EventStore.append`."""
        # Refuses what a server refuses.
        EncodedAppend(self.tenant, [Append(conversation_id, events, expected)], self._limit).encode()
        known = [self._by_id.get((conversation_id, event.id)) for event in events]
        for event, before in zip(events, known, strict=True):
            if before is not None and (differences := _differences(before, event)):
                raise EventIdConflict(conversation_id, event.id, differences)
        if None in known:
            self._check_deletion(
                conversation_id, [event for event, before in zip(events, known, strict=True) if before is None]
            )
            self._check(conversation_id, expected)
        return AppendResult(
            [
                self._keep(conversation_id, event)
                if before is None
                else Appended(
                    conversation_id, before.id, before.position, before.version, before.timestamp, is_new=False
                )
                for event, before in zip(events, known, strict=True)
            ]
        )

    async def events_of(self, versions: Mapping[UUID, int], limit: int = PAGE) -> list[Event]:
        """Of each of these conversations the events beyond its version, at most ``limit``, in order."""
        return [
            event
            for conversation_id, version in versions.items()
            for event in self._conversations.get(conversation_id, [])[version : version + limit]
        ]

    async def conversations(self) -> dict[UUID, int]:
        """Conversations in the order in which they began, with their versions."""
        return {one: len(events) for one, events in self._conversations.items() if events[0].event_type not in _AGENTS}

    async def conversations_with_tasks(self) -> dict[UUID, int]:
        """Conversations that have tasks, with their versions."""
        return {
            one: len(events)
            for one, events in self._conversations.items()
            if any(event.event_type.startswith("task.") for event in events)
        }

    async def pending(self) -> list[PendingRow]:
        """Messages that await an answer, oldest first."""
        return list(self._pending.values())

    async def latest(self, after: int, limit: int | None) -> list[Event]:
        """The latest of the events that are listed, beyond a position, oldest first."""
        listed = [event for event in self._log[after:] if event.event_type in LISTED]
        return listed if limit is None else listed[max(0, len(listed) - limit) :]

    async def position(self) -> int:
        """Of the last event."""
        return len(self._log)

    async def lease_answers(self, keys: Collection[Key], holder: UUID, seconds: float) -> dict[Key, LeaseStatus]:
        """Take the leases of messages, of each unless another holder has it; return who has them.

        They do not expire: no holder outlives the log, or ends before it.
        """
        return {
            key: LeaseStatus(self._leases.setdefault(key, holder), None, len(self._conversations.get(key[0], ())))
            for key in keys
        }

    async def renew_leases(self, keys: Collection[Key], holder: UUID, seconds: float) -> set[Key]:
        """Renew leases; return those that the holder still has."""
        return {key for key in keys if self._leases.get(key) == holder}

    async def release_answers(self, keys: Collection[Key], holder: UUID) -> None:
        """End leases, as far as the holder has them."""
        for key in await self.renew_leases(keys, holder, 0):
            del self._leases[key]

    def _check_deletion(self, conversation_id: UUID, new: Sequence[NewEvent]) -> None:
        is_deleted = conversation_id in self._deleted
        for event_type in (event.data.event_type for event in new):
            if is_deleted and event_type not in _ACCEPTED_WHEN_DELETED:
                raise ConversationIsDeleted(conversation_id)
            is_deleted = event_type == "conversation.deleted" or (
                is_deleted and event_type != "conversation.reactivated"
            )

    def _check(self, conversation_id: UUID, expected: ExpectedVersion) -> None:
        version, wanted = len(self._conversations.get(conversation_id, ())), encode_expected(expected)
        if (wanted >= 0 and wanted != version) or (wanted == _EXISTS and version == 0):
            raise WrongExpectedVersion(conversation_id, expected, version)

    def _keep(self, conversation_id: UUID, event: NewEvent) -> Appended:
        stream = self._conversations.setdefault(conversation_id, [])
        place = Appended(conversation_id, event.id, len(self._log) + 1, len(stream) + 1, datetime.now(UTC), is_new=True)
        kept = appended_event(self.tenant, event, place)
        self._log.append(kept)
        stream.append(kept)
        self._by_id[kept.conversation_id, kept.id] = kept
        if kept.event_type == "message.added" and kept.content.get("awaits_answer") is True:
            row = PendingRow(
                kept.conversation_id, kept.id, kept.content.get("given_id"), kept.occurred_at, kept.position
            )
            self._pending[kept.conversation_id, str(kept.id)] = row
        elif kept.event_type == "message.answered":
            self._pending.pop((kept.conversation_id, kept.content["message_id"]), None)
        elif kept.event_type == "conversation.deleted":
            self._deleted.add(kept.conversation_id)
        elif kept.event_type == "conversation.reactivated":
            self._deleted.discard(kept.conversation_id)
        return place


def _differences(kept: Event, event: NewEvent) -> str:
    """Name what distinguishes two events of one id, as the function ``event_differences`` of the server does."""
    kept_about = _without(MEMBER, kept.raw_metadata)
    about = _without(MEMBER, load(to_json(event.metadata.to_content(), "metadata")))
    kept_content, content = kept.content, load(to_json(event.data.to_content(), "content"))
    if isinstance(event.data, MessageAdded):
        kept_content, content = _without("sent_order", kept_content), _without("sent_order", content)
    pairs = {
        "event_type": (kept.event_type, event.data.event_type),
        "schema_version": (kept.schema_version, event.schema_version),
        "actor": (kept.actor, event.actor),
        "content": (kept_content, content),
    } | {f"metadata.{key}": (kept_about.get(key), about.get(key)) for key in sorted(kept_about.keys() | about.keys())}
    return ", ".join(name for name, (one, other) in pairs.items() if not equal(one, other))


def _without(name: str, members: Any) -> Any:
    return {key: value for key, value in members.items() if key != name} if isinstance(members, dict) else members
