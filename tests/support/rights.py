"""The rights of each role: as the documentation says, and as the catalogs of a database have them."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

import psycopg

from support.environment import TREE

Kind: TypeAlias = Literal["Tables", "Sequences", "Schemas", "Functions"]
Rights: TypeAlias = dict[tuple[str, str, str], set[str]]
"""Privileges by kind, name and role, as PostgreSQL names them, with the column if it is one of a column."""

ROLES = ("owner", "migrator", "app", "writer", "reader", "auditor", "projector", "search", "eraser")
OTHERS = ROLES[1:]
SCHEMAS = {"the store's own": ["live"], "*next* and *previous*": ["next", "previous"]}

_DOCUMENT = TREE / "docs/concepts/roles.md"
_SECTION = re.compile(r"^### (Tables|Sequences|Schemas|Functions)\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_WORDS = {
    "read": ["SELECT"],
    "write": ["INSERT", "UPDATE", "DELETE"],
    "add": ["INSERT"],
    "change": ["UPDATE"],
    "empty": ["TRUNCATE"],
    "run": ["EXECUTE"],
    "use": ["USAGE"],
    "make": ["CREATE"],
}
_CELL = re.compile(r"(\w+)(?: \(([\w, ]+)\))?")

_OBJECTS = """
SELECT CASE c.relkind WHEN 'S' THEN 'Sequences' ELSE 'Tables' END, c.relname, c.oid, c.relowner::regrole::text
  FROM pg_class c
 WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S')
 UNION ALL
SELECT 'Functions', p.proname, p.oid, p.proowner::regrole::text
  FROM pg_proc p
 WHERE p.pronamespace = 'public'::regnamespace
 UNION ALL
SELECT 'Schemas', s.stage, to_regnamespace(stage_schema(s.stage)), ''
  FROM unnest(ARRAY['live', 'next', 'previous']) AS s (stage)
 UNION ALL
SELECT 'Tables', format('%s.%s', c.relnamespace::regnamespace, c.relname), c.oid, c.relowner::regrole::text
  FROM pg_class c
 WHERE c.relnamespace IN (to_regnamespace('public_next'), to_regnamespace('public_previous')) AND c.relkind = 'r'
"""
_PRIVILEGES = {
    "Tables": ("table", ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]),
    "Sequences": ("sequence", ["USAGE", "SELECT", "UPDATE"]),
    "Schemas": ("schema", ["USAGE", "CREATE"]),
    "Functions": ("function", ["EXECUTE"]),
}
_OF_COLUMNS = """
SELECT a.attname, p.name
  FROM pg_attribute a, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p (name)
 WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
   AND has_column_privilege(%(role)s, %(oid)s, a.attnum, p.name)
   AND NOT has_table_privilege(%(role)s, %(oid)s, p.name)
"""


def documented() -> tuple[Rights, set[str]]:
    """Return the documented rights of all roles but the owner, and the functions that every role may run."""
    rights: Rights = {}
    text = _DOCUMENT.read_text()
    for kind, body in _SECTION.findall(text):
        lines = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")]
        roles = [cell.strip() for cell in lines[0][1:]]
        assert tuple(roles) == OTHERS, roles
        for names, *cells in lines[2:]:
            for name in SCHEMAS.get(names.strip(), re.findall(r"`(\w+)`", names)):
                for role, cell in zip(roles, cells, strict=True):
                    assert (kind, name, role) not in rights, f"{name} stands twice"
                    rights[kind, name, role] = _named(cell)
    for_all = set(re.findall(r"`(\w+)`", text.rpartition("Every role may run these functions")[2]))
    return rights, for_all


def granted(connection: psycopg.Connection[tuple[Any, ...]]) -> tuple[Rights, dict[tuple[str, str], str]]:
    """Return the rights of all roles but the owner by the catalogs, inherited or not, and the owner of each object."""
    rights: Rights = {}
    owners = {}
    for kind, name, oid, owner in connection.execute(_OBJECTS).fetchall():
        owners[kind, name] = owner
        for role in OTHERS:
            found = _found(connection, kind, oid, f"eventstore_{role}")
            rights[kind, name, role] = rights.get((kind, name, role), set()) | found
    return rights, owners


def _named(cell: str) -> set[str]:
    found = set()
    for word, columns in _CELL.findall(cell):
        for privilege in _WORDS[word]:
            found |= {f"{privilege} ({c.strip()})" for c in columns.split(",")} if columns else {privilege}
    return found


def _found(connection: psycopg.Connection[tuple[Any, ...]], kind: str, oid: int, role: str) -> set[str]:
    what, names = _PRIVILEGES[kind]
    if kind == "Tables" and connection.info.server_version >= 170000:
        names = [*names, "MAINTAIN"]
    rows = connection.execute(
        f"SELECT p FROM unnest(%s::text[]) AS p WHERE has_{what}_privilege(%s, %s::oid, p)",  # type: ignore[arg-type]
        (names, role, oid),
    ).fetchall()
    found = {name for (name,) in rows}
    if kind == "Tables":
        columns = connection.execute(_OF_COLUMNS, {"oid": oid, "role": role}).fetchall()
        found |= {f"{privilege} ({column})" for column, privilege in columns}
    return found
