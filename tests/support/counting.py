"""The expected statistics, counted event by event in plain Python: the model for the projection and its functions.

Written without their SQL, and straight from the events: no table of the projection has a counterpart here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from eventstore import Event
from projections.statistics import ActorCounts, DayCounts, ResponseTimes, RoleCounts, Size, StatusCount, TaskTimes

FINAL = {"completed", "canceled", "failed", "rejected"}
_TASK_EVENTS = {
    "task.created", "task.status_changed", "task.described", "task.artifact_added", "task.artifact_extended",
}  # fmt: skip


@dataclass
class Task:
    """A task: its visits to statuses, each with the time when it began."""

    created_at: datetime
    actor: str
    visits: list[tuple[str, datetime]] = field(default_factory=list)


@dataclass
class Conversation:
    """The state of a conversation after some of its events."""

    began_at: datetime
    actor: str
    is_active: bool = True
    is_deleted: bool = False
    asked_at: datetime | None = None
    answers: list[tuple[datetime, datetime, str]] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)

    def take(self, event: Event) -> None:
        """The next event of the conversation."""
        match event.event_type:
            case "conversation.archived":
                self.is_active = False
            case "conversation.reactivated":
                self.is_active, self.is_deleted = True, False
            case "conversation.deleted":
                self.is_deleted = True
            case "message.added":
                self._hear(event, event.content["role"])
        if event.event_type in _TASK_EVENTS:
            self._work(event)
        if event.event_type == "task.deleted":
            self.tasks.pop(event.content["task_id"], None)

    def _hear(self, event: Event, role: str) -> None:
        if role == "user" and self.asked_at is None:
            self.asked_at = event.occurred_at
        if role == "assistant" and self.asked_at is not None:
            self.answers.append((self.asked_at, event.occurred_at, event.actor))
            self.asked_at = None

    def _work(self, event: Event) -> None:
        task = self.tasks.setdefault(event.content["task_id"], Task(event.occurred_at, event.actor))
        if event.event_type in ("task.created", "task.status_changed"):
            status = event.content["status"]
        else:
            status = task.visits[-1][0] if task.visits else "unknown"
        if not task.visits or task.visits[-1][0] != status:
            task.visits.append((status, event.occurred_at))

    @property
    def status(self) -> str:
        """The status of the conversation in words."""
        return "deleted" if self.is_deleted else "active" if self.is_active else "archived"


FIRST_DATED, UNDATED_AGAIN = datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
"""Times before the first and from the second on are undated."""


class Counting:
    """The statistics of some events, of which all belong to one tenant.

    Args:
        json_bytes: how long the parts of an event are as JSON, as PostgreSQL writes it.
        day_of: which day a time belongs to.
    """

    def __init__(
        self,
        events: Iterable[Event],
        json_bytes: Callable[[Event], int],
        *,
        since: date | None = None,
        until: date | None = None,
        actor: str | None = None,
        day_of: Callable[[datetime], date] = lambda moment: moment.astimezone(UTC).date(),
    ) -> None:
        events = sorted(events, key=lambda event: event.position)
        self._json_bytes, self._actor = json_bytes, actor
        self._day_of = lambda moment: day_of(moment) if FIRST_DATED <= moment < UNDATED_AGAIN else None

        def is_wanted(moment: datetime) -> bool:
            if since is None and until is None:
                return True
            day = self._day_of(moment)
            return day is not None and (since or date.min) <= day <= (until or date.max)

        self._wanted = is_wanted
        self._events = [e for e in events if self._wanted(e.occurred_at) and actor in (None, e.actor)]
        self._conversations: dict[UUID, Conversation] = {}
        for event in events:
            known = self._conversations.setdefault(event.conversation_id, Conversation(event.occurred_at, event.actor))
            known.take(event)

    @property
    def _begun(self) -> list[Conversation]:
        return [c for c in self._conversations.values() if self._wanted(c.began_at) and self._actor in (None, c.actor)]

    @property
    def _created(self) -> list[Task]:
        return [
            task
            for c in self._conversations.values()
            for task in c.tasks.values()
            if self._wanted(task.created_at) and self._actor in (None, task.actor)
        ]

    def by_day(self) -> list[DayCounts]:
        """Return the rows of :meth:`Statistics.by_day`."""
        day = self._day_of
        return [
            DayCounts(key, **counts)
            for key, counts in sorted(
                self._counts(
                    lambda event: day(event.occurred_at),
                    lambda conversation: day(conversation.began_at),
                    lambda task: day(task.created_at),
                ).items(),
                key=lambda item: item[0] or date.max,
            )
        ]

    def by_actor(self) -> list[ActorCounts]:
        """Return the rows of :meth:`Statistics.by_actor`."""
        counts = self._counts(lambda event: event.actor, lambda begun: begun.actor, lambda task: task.actor)
        return sorted((ActorCounts(key, **c) for key, c in counts.items()), key=lambda row: (-row.events, row.actor))

    def _counts(
        self, of_event: Callable[[Event], Any], of_conversation: Callable[[Conversation], Any],
        of_task: Callable[[Task], Any],
    ) -> dict[Any, dict[str, int]]:  # fmt: skip
        keys = {of_event(event) for event in self._events}
        counts = {}
        for key in keys:
            events = [event for event in self._events if of_event(event) == key]
            texts = [_text(event) for event in events if event.event_type == "message.added"]
            counts[key] = {
                "conversations": sum(of_conversation(begun) == key for begun in self._begun),
                "active_conversations": len({event.conversation_id for event in events}),
                "messages": len(texts),
                "tasks": sum(of_task(task) == key for task in self._created),
                "events": len(events),
                "characters": sum(map(len, texts)),
                "bytes": sum(len(text.encode()) for text in texts),
            }
        return counts

    def by_role(self) -> list[RoleCounts]:
        """Return the rows of :meth:`Statistics.by_role`."""
        messages = self._messages
        rows = []
        for role in {event.content["role"] for event in messages}:
            spoken = [event for event in messages if event.content["role"] == role]
            rows.append(
                RoleCounts(
                    role,
                    len({event.conversation_id for event in spoken}),
                    len(spoken),
                    sum(len(_text(event)) for event in spoken),
                    sum(len(_text(event).encode()) for event in spoken),
                    sum(len(event.content.get("parts", ())) for event in spoken),
                    sum(self._json_bytes(event) for event in spoken if "parts" in event.content),
                )
            )
        return sorted(rows, key=lambda row: (-row.messages, row.role))

    def by_status(self) -> list[StatusCount]:
        """Return the rows of :meth:`Statistics.by_status`."""
        words = [("conversation", c.status) for c in self._begun]
        words += [("task", task.visits[-1][0]) for task in self._created]
        rows = [StatusCount(kind, status, words.count((kind, status))) for kind, status in set(words)]
        return sorted(rows, key=lambda row: (row.kind, -row.number, row.status))

    def response_times(self) -> ResponseTimes:
        """Return the rows of :meth:`Statistics.response_times`."""
        waits = [(asked, answered, actor) for c in self._conversations.values() for asked, answered, actor in c.answers]
        seconds = [
            (answered - asked).total_seconds()
            for asked, answered, actor in waits
            if self._wanted(asked) and self._actor in (None, actor)
        ]
        open_ones = [c.asked_at for c in self._conversations.values() if c.asked_at and self._wanted(c.asked_at)]
        measured = [value for value in seconds if value >= 0]
        return ResponseTimes(
            "all",
            len(seconds) + (len(open_ones) if self._actor is None else 0),
            len(seconds),
            len(seconds) - len(measured),
            *_times(measured),
            max(measured, default=None),
        )

    def task_times(self) -> list[TaskTimes]:
        """Return the rows of :meth:`Statistics.task_times`."""
        rows = []
        for status in {status for task in self._created for status, _ in task.visits}:
            present = [task for task in self._created if task.visits[-1][0] == status]
            totals = [(task.visits[-1][1] - task.created_at).total_seconds() for task in present if status in FINAL]
            stays = [
                (left - entered).total_seconds()
                for task in self._created
                for (visited, entered), (_, left) in zip(task.visits, task.visits[1:], strict=False)
                if visited == status
            ]
            rows.append(
                TaskTimes(
                    status, status in FINAL,
                    len(present), sum(s < 0 for s in totals), *_times([s for s in totals if s >= 0]),
                    len(stays), sum(s < 0 for s in stays), *_times([s for s in stays if s >= 0]),
                )
            )  # fmt: skip
        return sorted(rows, key=lambda row: (-row.tasks, row.status))

    def sizes(self) -> list[Size]:
        """Return the rows of :meth:`Statistics.sizes`."""
        texts = [_text(event) for event in self._messages]
        with_parts = [event for event in self._messages if "parts" in event.content]
        chunks = [e for e in self._events if e.event_type in ("task.artifact_added", "task.artifact_extended")]
        return [
            _size("text", len(texts), sum(map(len, texts)), [len(text.encode()) for text in texts]),
            _size(
                "parts",
                sum(len(event.content["parts"]) for event in with_parts),
                None,
                [self._json_bytes(event) for event in with_parts],
            ),
            _size("artifacts", len(chunks), None, [self._json_bytes(event) for event in chunks]),
        ]

    @property
    def _messages(self) -> list[Event]:
        return [event for event in self._events if event.event_type == "message.added"]


def rounded(row: Any) -> dict[str, Any]:
    """A row whose seconds can be compared: a sum of doubles depends on the order in which it is made."""
    return {name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(row).items()}


def _size(what: str, number: int, characters: int | None, sizes: list[int]) -> Size:
    return Size(what, number, characters, sum(sizes), sum(sizes) / number if number else None, max(sizes, default=0))


def _times(seconds: list[float]) -> tuple[float | None, float | None, float | None]:
    if not seconds:
        return None, None, None
    return math.fsum(seconds) / len(seconds), _percentile(seconds, 0.5), _percentile(seconds, 0.95)


def _percentile(values: list[float], fraction: float) -> float:
    ordered, place = sorted(values), fraction * (len(values) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def _text(event: Event) -> str:
    content = event.content
    extra = content.get("extra", {}).get("content")
    shown = (content.get("content"), _text_of(content.get("parts")), _text_of(extra))
    return next((text for text in shown if text is not None), "")


def _text_of(parts: Any) -> str | None:
    if not isinstance(parts, list):
        return None
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None
