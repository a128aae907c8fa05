"""Databases as versions of google-adk have made them, by their own statements."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_SESSIONS = """
CREATE TABLE sessions (app_name VARCHAR(128) NOT NULL, user_id VARCHAR(128) NOT NULL, id VARCHAR(128) NOT NULL,
                       state {json} NOT NULL, create_time {time} NOT NULL, update_time {time} NOT NULL,
                       PRIMARY KEY (app_name, user_id, id));
CREATE TABLE app_states (app_name VARCHAR(128) PRIMARY KEY, state {json} NOT NULL, update_time {time} NOT NULL);
CREATE TABLE user_states (app_name VARCHAR(128), user_id VARCHAR(128), state {json} NOT NULL, update_time {time},
                          PRIMARY KEY (app_name, user_id));
"""
_KEYS = """id VARCHAR(128) NOT NULL, app_name VARCHAR(128) NOT NULL, user_id VARCHAR(128) NOT NULL,
           session_id VARCHAR(128) NOT NULL, invocation_id VARCHAR(256) NOT NULL, timestamp {time} NOT NULL,"""
_PRIMARY = "PRIMARY KEY (id, app_name, user_id, session_id)"

LAYOUTS = {
    "2.x": f"CREATE TABLE events ({_KEYS} event_data {{json}}, {_PRIMARY});",
    "1.x": f"""CREATE TABLE events ({_KEYS} author VARCHAR(256) NOT NULL, actions {{bytes}} NOT NULL,
                   long_running_tool_ids_json TEXT, branch VARCHAR(256), content {{json}}, grounding_metadata {{json}},
                   custom_metadata {{json}}, usage_metadata {{json}}, partial BOOLEAN, turn_complete BOOLEAN,
                   error_code VARCHAR(256), error_message TEXT, interrupted BOOLEAN, {_PRIMARY});""",
    "1.0": f"""CREATE TABLE events ({_KEYS} author VARCHAR(256) NOT NULL, actions {{bytes}} NOT NULL,
                   long_running_tool_ids_json TEXT, branch VARCHAR(256), content {{json}}, grounding_metadata {{json}},
                   partial BOOLEAN, turn_complete BOOLEAN, error_code VARCHAR(256), error_message VARCHAR(1024),
                   interrupted BOOLEAN, {_PRIMARY});""",
}
"""The table of events in each version."""

WORDS = {
    "sqlite": {"json": "TEXT", "time": "DATETIME", "bytes": "BLOB"},
    "postgresql": {"json": "JSONB", "time": "TIMESTAMP WITHOUT TIME ZONE", "bytes": "BYTEA"},
}

_IMAGE = {"inline_data": {"mime_type": "image/png", "data": "__79-w=="}}
_CALL = {"function_call": {"id": "c", "name": "f", "args": {"x": None}}}
_RESULT = {"function_response": {"id": "c", "name": "f", "response": {"ok": 1.5}}}
_FILE = {"file_data": {"file_uri": "gs://a", "mime_type": "text/plain"}}

CONTENTS: list[tuple[str, Json | None]] = [
    ("user", {"role": "user", "parts": [{"text": "Olá"}, _IMAGE]}),
    ("agent", {"role": "model", "parts": [{"text": "hm", "thought": True}, _CALL]}),
    ("agent", {"role": "user", "parts": [_RESULT]}),
    ("agent", None),
    ("agent", {"role": "model", "parts": [_FILE, {"text": "bye", "extra": 1}]}),
]
"""Texts and their authors; None is an event without a text."""


def statements(layout: str, database: str) -> list[str]:
    """Return the statements that create the tables."""
    text = (_SESSIONS + LAYOUTS[layout]).format(**WORDS[database])
    return [one for one in text.split(";") if one.strip()]


def rows(layout: str, user: str = "ana", session: str = "s1") -> dict[str, list[Json]]:
    """A session with an event for each of :data:`CONTENTS`, a second apart."""
    times = [f"2026-01-02 03:04:{second:02}.250000" for second in range(len(CONTENTS))]
    keys = {"app_name": "app", "user_id": user}
    events = []
    for number, (author, content) in enumerate(CONTENTS):
        row = keys | {"session_id": session, "id": f"e{number}", "invocation_id": "i", "timestamp": times[number]}
        if layout == "2.x":
            moment = 1767323040.25 + number  # 2026-01-02T03:04:00.25Z
            data: Json = {
                "author": author,
                "invocation_id": "i",
                "id": f"e{number}",
                "timestamp": moment,
                "actions": {},
            }
            row["event_data"] = json.dumps(data if content is None else data | {"content": content})
        else:
            tools = json.dumps(["c"]) if number == 1 else None
            row |= {
                "author": author,
                "actions": b"\x80pickled",
                "long_running_tool_ids_json": tools,
                "turn_complete": True,
            }
            row["content"] = None if content is None else json.dumps(content)
        events.append(row)
    state = {"app_name": "app", "update_time": times[0]}
    return {
        "sessions": [keys | {"id": session, "state": '{"a": 1}', "create_time": times[0], "update_time": times[-1]}],
        "events": events,
        "app_states": [state | {"state": '{"v": 2}'}],
        "user_states": [state | {"user_id": user, "state": '{"lang": "pt"}'}],
    }


def make_sqlite(path: Path, layout: str) -> None:
    """Makes an SQLite file with one session."""
    with sqlite3.connect(path) as connection:
        for statement in statements(layout, "sqlite"):
            connection.execute(statement)
        fill(connection, layout)
    connection.close()


def fill(connection: sqlite3.Connection, layout: str, user: str = "ana", session: str = "s1") -> None:
    """Adds a session."""
    for table, added in rows(layout, user, session).items():
        for row in added:
            names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row)
