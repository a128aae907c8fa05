"""The expected read tables, folded from the log event by event in plain Python: the model for the projections.

Written without their SQL, so that an error would have to be made twice to stay unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from eventstore import Event, conversation_uuid
from eventstore.member_order import MEMBER
from support.scoped_queries import open_as

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, dict[tuple[Any, ...], Row]]

KEYS: dict[str, tuple[str, ...]] = {
    "conversations": ("tenant_id", "id"),
    "messages": ("tenant_id", "conversation_id", "id"),
    "tasks": ("tenant_id", "conversation_id", "id"),
    "task_artifacts": ("tenant_id", "conversation_id", "version"),
    "conversation_actors": ("tenant_id", "conversation_id", "actor"),
    "pending_messages": ("tenant_id", "conversation_id", "id"),
}
"""The read tables and their keys."""

FILLED_BY = {
    "conversations": "conversations", "messages": "messages", "tasks": "tasks", "task_artifacts": "tasks",
    "conversation_actors": "actors", "pending_messages": "pending",
}  # fmt: skip
"""The projection that fills each table."""


def stored(url: str, tenants: Iterable[str] | None = None) -> Tables:
    """The read tables as they are, every column of every row, by plain SQL."""
    with open_as(url) as connection:
        connection.execute("SET timezone = 'UTC'")
        return {table: _rows(connection, table, tenants) for table in KEYS}


def _rows(connection: psycopg.Connection[Any], table: str, tenants: Iterable[str] | None) -> dict[Any, Row]:
    query = sql.SQL("SELECT * FROM {} WHERE tenant_id = ANY (%(tenants)s) OR %(tenants)s::text[] IS NULL")
    parameters = {"tenants": None if tenants is None else list(tenants)}
    rows = connection.cursor(row_factory=dict_row).execute(query.format(sql.Identifier(table)), parameters).fetchall()
    by_key = {tuple(str(row[column]) for column in KEYS[table]): _plain(row) for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def fold(events: Iterable[Event]) -> Tables:
    """The read tables that a log amounts to."""
    folding = _Folding()
    for event in sorted(events, key=lambda event: event.position):
        folding.take(event)
    return folding.tables


class _Folding:
    def __init__(self) -> None:
        self.tables: Tables = {table: {} for table in KEYS}
        self._actors: dict[tuple[str, str], set[tuple[str, str, str]]] = {}

    def take(self, event: Event) -> None:
        if event.event_type in ("agent.registered", "agent.unregistered", "a2a.home", "a2a.push_notification"):
            return
        self._conversation(event)
        self._actor(event)
        if event.event_type == "conversation.rewound":
            self._rewound(event)
        if event.event_type == "message.added":
            self._message(event)
        if event.event_type == "message.answered":
            self._answered(event)
        if event.event_type in ("message.added", "message.answered"):
            self._pending(event)
        if event.event_type in TASK_EVENTS:
            self._task(event)
        if event.event_type in ("task.artifact_added", "task.artifact_extended"):
            self._artifact(event)
        if event.event_type == "task.deleted":
            self._task_deleted(event)

    def _conversation(self, event: Event) -> None:
        row = self.tables["conversations"].setdefault(
            (event.tenant_id, str(event.conversation_id)),
            {
                "id": str(event.conversation_id), "tenant_id": event.tenant_id, "name": "", "is_active": True,
                "is_deleted": False, "created_at": event.occurred_at, "updated_at": event.occurred_at,
                "message_count": 0, "erased_count": 0, "given_id": None, "forked_from": None, "metadata": None,
                "member_order": None,
            },
        )  # fmt: skip
        _touch(row, event)
        row["erased_count"] += event.is_erased
        content = event.content
        match event.event_type:
            case "conversation.created":
                row["name"] = content.get("name", row["name"])
                row["metadata"] = content.get("metadata", row["metadata"])
                row["member_order"] = _order(event) or None if "metadata" in content else row["member_order"]
                if row["given_id"] is None and _is_name_of(content.get("given_id"), event):
                    row["given_id"] = content["given_id"]
            case "conversation.renamed":
                row["name"] = content["name"]
            case "conversation.forked":
                row["name"] = content.get("name", row["name"])
                row["metadata"] = content.get("metadata", row["metadata"])
                row["member_order"] = _order(event) or None if "metadata" in content else row["member_order"]
                source, version = content["source_conversation_id"], content["source_version"]
                if event.version == 1:
                    row["forked_from"] = {"conversation_id": source, "version": version}
            case "conversation.archived":
                row["is_active"] = False
            case "conversation.reactivated":
                row["is_active"], row["is_deleted"] = True, False
            case "conversation.deleted":
                row["is_deleted"] = True
            case "message.added":
                row["message_count"] += 1

    def _rewound(self, event: Event) -> None:
        messages = self.tables["messages"]
        for table, column in (("messages", "version"), ("tasks", "first_version"), ("task_artifacts", "version")):
            for key, row in list(self.tables[table].items()):
                is_of_it = key[:2] == (event.tenant_id, str(event.conversation_id))
                if is_of_it and row[column] > event.content["to_version"]:
                    del self.tables[table][key]
        conversation = event.tenant_id, str(event.conversation_id)
        self.tables["conversations"][conversation]["message_count"] = sum(key[:2] == conversation for key in messages)
        self.tables["pending_messages"] = {
            key: row for key, row in self.tables["pending_messages"].items() if key in messages
        }

    def _actor(self, event: Event) -> None:
        conversation = self.tables["conversations"][event.tenant_id, str(event.conversation_id)]
        key = (event.tenant_id, str(event.conversation_id), event.actor)
        self.tables["conversation_actors"][key] = {
            "tenant_id": event.tenant_id, "conversation_id": str(event.conversation_id), "actor": event.actor,
        }  # fmt: skip
        keys = self._actors.setdefault(key[:2], set())
        keys.add(key)
        for each in keys:
            times = {name: conversation[name] for name in ("created_at", "updated_at")}
            self.tables["conversation_actors"][each] |= times

    def _message(self, event: Event) -> None:
        content = event.content
        text, parts, extra = content.get("content"), content.get("parts"), dict(content.get("extra", {}))
        if text == "" or (text is not None and parts is not None):
            extra["content"] = text
        shown = next((t for t in (text, _text_of(parts), _text_of(extra.get("content"))) if t is not None), "")
        sent = {"sent": content["sent_order"]} if "sent_order" in content else {}
        self.tables["messages"][event.tenant_id, str(event.conversation_id), str(event.id)] = {
            "id": str(event.id), "conversation_id": str(event.conversation_id), "tenant_id": event.tenant_id,
            "version": event.version, "role": content["role"], "content": shown, "parts": parts,
            "created_at": event.occurred_at, "actor": event.actor, "given_id": content.get("given_id"),
            "extra": extra or None, "metadata": content.get("metadata"), "member_order": _order(event) | sent or None,
            "status": "pending" if content.get("awaits_answer") is True else None, "error": None,
        }  # fmt: skip

    def _answered(self, event: Event) -> None:
        key = (event.tenant_id, str(event.conversation_id), event.content["message_id"])
        row = self.tables["messages"].get(key)
        if row is not None and row["status"] is not None:
            row |= {"status": event.content["outcome"], "error": event.content.get("error")}

    def _pending(self, event: Event) -> None:
        key = (event.tenant_id, str(event.conversation_id))
        rows = self.tables["pending_messages"]
        if event.event_type == "message.answered":
            rows.pop((*key, event.content["message_id"]), None)
        elif event.content.get("awaits_answer") is True:
            rows[(*key, str(event.id))] = {
                "id": str(event.id), "conversation_id": str(event.conversation_id), "tenant_id": event.tenant_id,
                "position": event.position, "given_id": event.content.get("given_id"), "created_at": event.occurred_at,
            }  # fmt: skip

    def _task(self, event: Event) -> None:
        content = event.content
        row = self.tables["tasks"].setdefault(
            (event.tenant_id, str(event.conversation_id), content["task_id"]),
            {
                "id": content["task_id"], "conversation_id": str(event.conversation_id), "tenant_id": event.tenant_id,
                "first_version": event.version, "status": "unknown", "description": "", "created_at": event.occurred_at,
                "updated_at": event.occurred_at, "given_id": None, "status_message": None, "metadata": None,
                "extra": None, "status_extra": None, "member_order": None, "added_history": None,
            },
        )  # fmt: skip
        _touch(row, event)
        if event.event_type in ("task.created", "task.described"):
            _describe(row, event)
        self._task_order(row, event)
        match event.event_type:
            case "task.created":
                row["status"], row["description"] = content["status"], content["description"]
                row["metadata"] = content.get("metadata", row["metadata"])
                row["given_id"] = row["given_id"] if row["given_id"] is not None else content.get("given_id")
            case "task.status_changed":
                row["status"], row["status_message"] = content["status"], content.get("message")
                row["status_extra"] = content.get("extra")
            case "task.described":
                row["description"] = content.get("description", row["description"])
                row["metadata"] = content.get("metadata", row["metadata"])

    def _task_deleted(self, event: Event) -> None:
        task_id = event.content["task_id"]
        self.tables["tasks"].pop((event.tenant_id, str(event.conversation_id), task_id), None)
        for key, row in list(self.tables["task_artifacts"].items()):
            if key[:2] == (event.tenant_id, str(event.conversation_id)) and row["task_id"] == task_id:
                del self.tables["task_artifacts"][key]

    def _task_order(self, row: Row, event: Event) -> None:
        names = (
            {"metadata": "metadata", "extra": "extra"} if event.event_type in ("task.created", "task.described") else {}
        )
        names = {column: name for column, name in names.items() if name in event.content}
        if event.event_type == "task.status_changed":
            names = {"status_message": "message", "status_extra": "extra"}
        before = {column: order for column, order in (row["member_order"] or {}).items() if column not in names}
        new = {column: _order(event)[name] for column, name in names.items() if name in _order(event)}
        row["member_order"] = before | new or None

    def _artifact(self, event: Event) -> None:
        content = event.content
        self.tables["task_artifacts"][event.tenant_id, str(event.conversation_id), str(event.version)] = {
            "task_id": content["task_id"], "conversation_id": str(event.conversation_id),
            "tenant_id": event.tenant_id, "version": event.version, "artifact_id": content["artifact_id"],
            "extends": event.event_type == "task.artifact_extended", "last_chunk": content["last_chunk"],
            "continues_text": event.event_type == "task.artifact_extended" and content.get("continues_text") is True,
            "name": content.get("name"), "description": content.get("description"), "parts": content["parts"],
            "created_at": event.occurred_at, "extra": content.get("extra"), "metadata": content.get("metadata"),
            "member_order": _order(event) or None,
        }  # fmt: skip


TASK_EVENTS = {
    "task.created", "task.status_changed", "task.described", "task.artifact_added", "task.artifact_extended",
}  # fmt: skip


def _describe(row: Row, event: Event) -> None:
    """Apply what an event says of a task's further members. Called before the order of the members is."""
    content, orders = event.content, _order(event)
    has_extra, has_history = "extra" in content, event.event_type == "task.described" and "history" in content
    if has_extra and (not has_history or "history" in content["extra"]):
        row["added_history"] = None
    elif has_extra and (row["added_history"] or {}).get("after") is None:
        after = {"extra": row["extra"], "order": (row["member_order"] or {}).get("extra")}
        row["added_history"] = {"chunks": [], **(row["added_history"] or {}), "after": after}
    row["extra"] = content.get("extra", row["extra"])
    if has_history:
        before = row["added_history"] or {"after": None, "chunks": []}
        chunk = {"messages": content["history"], "order": orders.get("history")}
        row["added_history"] = {**before, "chunks": [*before["chunks"], chunk]}


def _touch(row: Row, event: Event) -> None:
    row["version"] = event.version
    row["updated_at"] = max(row["updated_at"], event.occurred_at)


def _order(event: Event) -> dict[str, Any]:
    """The order of the members in the content of a built-in event, by member."""
    return dict(event.raw_metadata.get(MEMBER, {}).get("content", {}))


def _text_of(parts: Any) -> str | None:
    if not isinstance(parts, list):
        return None
    texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def _plain(row: Row) -> Row:
    return {name: str(value) if name in ("id", "conversation_id", "task_id") else value for name, value in row.items()}


def _is_name_of(given_id: str | None, event: Event) -> bool:
    """Return whether a text is what a client calls the event's conversation, and not only its UUID."""
    if given_id is None or given_id == str(event.conversation_id):
        return False
    return conversation_uuid(event.tenant_id, given_id) == event.conversation_id
