"""Comparison of a database's schema with what the migrations create, and a diagnosis of the differences.

``db/catalog.tsv`` lists what the migrations create with a login that has CREATEROLE: one line for each fact that the
query ``catalog`` reads, such as a policy, the owner of a table, or a trigger and whether it is enabled. A test
generates it. The query reads the same facts from any other database. Objects of users are in neither.

If the login has no CREATEROLE, the database has the same objects, all owned by that login, without rights or policies
for roles. Facts about roles are then not expected, but reported as a whole (:attr:`Comparison.has_roles`).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg import sql

from eventstore.database.dbmate import migrations_folder
from eventstore.database.queries import query

CATALOG = query("eventstore.database", "catalog")
OWNER = "eventstore_owner"
ROLES_COMMAND = "eventstore migrate roles"
FORMER_OWNER = "open_to_former_owner"
"""The name of policies that ``eventstore migrate roles`` creates and drops."""

SyncConnection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
Facts: TypeAlias = dict[tuple[str, str], str]
"""Details by kind and name."""

_OF_ROLES = ("owner of", "rights on", "role", "membership")
"""Kinds of facts that a database without roles does not have."""
_OF_OTHER_ROLES = ("open_to_projector on ", "open_to_search on ", "open_to_eraser on ")
"""Beginnings of the names of policies that a database without roles does not have."""
TEXT = "text of"
"""The kind of facts about the functions by which the log is verified: hashes of their texts."""
_HARMLESS = ("rights on", "role", "membership", "schema", "type", TEXT)
"""Kinds of facts whose differences may cause refused operations or reports, but endanger neither data nor isolation."""
_BY_ROLES_COMMAND = (
    "owner of", "rights on", "role", "membership", "policy", "row-level security on", "definition of", "schema",
)  # fmt: skip
"""Kinds of facts that ``eventstore migrate roles`` restores."""
_ANY_LOGIN = "<login>"
"""The placeholder for the login that migrates, as an owner."""
_SHOWN = 6
"""The number of names of a kind that a message lists; the rest is counted."""


@dataclass(frozen=True, slots=True)
class CatalogDifference:
    """A fact that differs from what the migrations create.

    Attributes:
        expected: its detail; None if the fact is not expected.
        found: its detail; None if the database does not have it.
    """

    kind: str
    name: str
    expected: str | None
    found: str | None

    @property
    def is_structural(self) -> bool:
        """True if the store must not be used with this difference.

        The owner of a table is exempt from its row-level security; that of a function only determines its rights.
        """
        if self.expected is None or self.kind in _HARMLESS:
            return False
        return self.kind != "owner of" or self.name.startswith("table ")

    @property
    def by_roles_command(self) -> bool:
        """True if ``eventstore migrate roles`` corrects this difference."""
        return self.kind in _BY_ROLES_COMMAND and not self.is_foreign_policy

    @property
    def is_foreign_policy(self) -> bool:
        """True if it is a policy that is not the store's, on a table of the store."""
        return self.kind == "policy" and self.expected is None and not self.name.startswith(f"{FORMER_OWNER} on ")

    def __str__(self) -> str:
        return f"{self._state} {self.kind} {self.name}"

    @property
    def _state(self) -> str:
        if self.kind == "trigger" and self.found is not None and self.found.startswith("disabled"):
            return "disabled"
        return "missing" if self.found is None else "unexpected" if self.expected is None else "altered"

    @property
    def group(self) -> str:
        """State and kind, by which messages group differences."""
        return f"{self._state} {self.kind}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between a database and what the migrations create.

    Attributes:
        has_roles: the log belongs to the role ``eventstore_owner``, so row-level security holds for logins.
        missing_roles: roles of the store that the server lacks.
    """

    differences: tuple[CatalogDifference, ...]
    has_roles: bool
    missing_roles: tuple[str, ...]

    def structural(self) -> list[CatalogDifference]:
        """Return the differences with which the store must not be used."""
        return [difference for difference in self.differences if difference.is_structural]


def catalog_file() -> Path:
    """Return the path of the list of what the migrations create."""
    return migrations_folder().parent / "catalog.tsv"


@cache
def expected_facts() -> Facts:
    """Return the facts that the migrations create with a login that has CREATEROLE."""
    lines = catalog_file().read_text(encoding="utf-8").splitlines()
    facts: Facts = {}
    for line in lines:
        kind, name, detail = line.split("\t")
        facts[kind, name] = detail.replace("\\n", "\n")
    return facts


def compare_catalog(rows: Iterable[tuple[str, str, str]], *, expect_roles: bool = False) -> Comparison:
    """Compare the facts of a database, the rows of :data:`CATALOG`, with what the migrations create.

    Args:
        expect_roles: whether to expect facts about roles even if nothing belongs to the owner's role yet.
    """
    found: Facts = {(kind, name): detail for kind, name, detail in rows}
    expected = expected_facts()
    has_roles = found.get(("owner of", "table events")) == OWNER
    with_roles = has_roles or expect_roles
    roles = sorted(name for kind, name in expected if kind == "role")
    differences = []
    for (kind, name), detail in expected.items():
        if not with_roles and (kind in _OF_ROLES or name.startswith(_OF_OTHER_ROLES)):
            continue
        if detail == _ANY_LOGIN:
            continue
        if (value := found.get((kind, name))) != detail:
            differences.append(CatalogDifference(kind, name, detail, value))
    for kind, name in found.keys() - expected.keys():
        on_ours = kind == "policy" and ("table", name.rpartition(" on ")[2]) in expected
        if (with_roles and (on_ours or kind == "membership")) or (on_ours and not name.startswith(_OF_OTHER_ROLES)):
            differences.append(CatalogDifference(kind, name, None, found[kind, name]))
    missing = tuple(role for role in roles if ("role", role) not in found)
    return Comparison(tuple(sorted(differences, key=lambda d: (d.kind, d.name))), has_roles, missing)


def describe(differences: Iterable[CatalogDifference]) -> str:
    """Return the differences in one line: the first names of each kind, and the number of others."""
    groups: dict[str, list[str]] = {}
    for difference in differences:
        groups.setdefault(difference.group, []).append(difference.name)
    return "; ".join(
        f"{group}: {', '.join(names[:_SHOWN])}" + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for group, names in groups.items()
    )


def remedy(differences: Iterable[CatalogDifference]) -> str:
    """Return the commands that correct the differences."""
    remaining = list(differences)
    steps = []
    if any(difference.by_roles_command for difference in remaining):
        steps.append(ROLES_COMMAND)
    for difference in remaining:
        if difference.is_foreign_policy:
            steps.append(f"DROP POLICY {difference.name}")
        if difference.group == "disabled trigger" and difference.expected:
            trigger, _, table = difference.name.partition(" on ")
            always = "ALWAYS " if difference.expected.startswith("enabled always") else ""
            steps.append(f"ALTER TABLE {table} ENABLE {always}TRIGGER {trigger}")
    if any(not (d.by_roles_command or d.is_foreign_policy or d.group == "disabled trigger") for d in remaining):
        steps.append("restore the schema from a complete dump")
    return "; ".join(steps)


def missing_events(last_event: int, last_checkpoint: int) -> list[str]:
    """Return a sentence if read tables contain events that the log lacks, otherwise nothing."""
    if last_checkpoint <= last_event:
        return []
    return [
        f"the read tables are at position {last_checkpoint}, but the log ends at {last_event}: events are missing, as "
        "after restoring a dump made with --enable-row-security; restore a dump that a superuser has made"
    ]


_EXPOSED = query("eventstore.database", "exposed")
_ISOLATED_ROLES = ("eventstore_reader", "eventstore_auditor")
"""The roles that row-level security restricts to a tenant."""
_LOOK_MILLISECONDS = "50"
"""The time for each table: a visible row is found at once, but without one the whole table would be read."""


def inspect(connection: SyncConnection, schema: str, *, is_newer: bool) -> list[str]:
    """Return a sentence for each problem of a database whose migrations are all applied, with its remedy.

    Args:
        connection: a connection in a transaction whose search path begins with the schema.
        is_newer: whether it has further migrations, which may have added what this version does not expect.
    """
    comparison = compare_catalog(connection.execute(CATALOG).fetchall())
    found = lack_of_roles(comparison)
    if differences := [d for d in comparison.differences if d.expected is not None or not is_newer]:
        found.append(f"not as the migrations make it: {describe(differences)}: {remedy(differences)}")
    found += exposures(connection, schema, comparison)
    if not comparison.structural():  # or the function could be missing, or see less than there is
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            row = connection.execute("SELECT last_event, last_checkpoint FROM log_integrity()").fetchone()
            found += missing_events(*row) if row is not None else []
    return found


def lack_of_roles(comparison: Comparison) -> list[str]:
    """Return a sentence if the log does not belong to the owner's role, otherwise nothing."""
    if comparison.has_roles:
        return []
    missing = f" (roles that do not exist: {', '.join(comparison.missing_roles)})" if comparison.missing_roles else ""
    return [
        f"row-level security is not in force: the log belongs to a login and not to {OWNER}{missing}; logins with its "
        f"rights see every tenant: {ROLES_COMMAND}"
    ]


def exposures(connection: SyncConnection, schema: str, comparison: Comparison) -> list[str]:
    """Return a sentence for the login, and for each role that it may set, that sees rows without a current tenant."""
    if not comparison.has_roles:
        return []
    advice = "undo what is named above" if comparison.differences else ROLES_COMMAND
    return [sentence for role in (None, *_ISOLATED_ROLES) for sentence in _exposed(connection, schema, role, advice)]


def _exposed(connection: SyncConnection, schema: str, role: str | None, advice: str) -> list[str]:
    """Return a sentence if the login, or a role that it may set, sees rows without a current tenant."""
    who = f"the role {role}" if role else f"the login {connection.info.user}"
    tables = [
        name
        for (kind, name), detail in expected_facts().items()
        if (kind, detail) == ("row-level security on", "forced")
    ]
    with connection.transaction(force_rollback=True):
        if role is not None:
            try:
                with connection.transaction():
                    connection.execute("SELECT set_config('role', %s, true)", (role,))
            except psycopg.errors.InsufficientPrivilege:
                return []
        row = connection.execute(_EXPOSED, {"tables": tables}).fetchone()
        is_exempt, readable = row or (False, [])
        if is_exempt:
            return [
                f"row-level security does not hold for {who}, a superuser or with BYPASSRLS: "
                "let the service connect as another login"
            ]
        connection.execute(
            "SELECT set_config('eventstore.tenant', '', true), set_config('statement_timeout', %s, true)",
            (_LOOK_MILLISECONDS,),
        )
        visible = [table for table in readable if _is_visible(connection, schema, table)]
    if not visible:
        return []
    return [f"{who} sees rows without naming a tenant: {', '.join(visible)}: {advice}"]


def _is_visible(connection: SyncConnection, schema: str, table: str) -> bool:
    text = sql.SQL("SELECT NOT row_security_active({}) OR EXISTS (SELECT FROM {})").format(
        sql.Literal(f"{schema}.{table}"), sql.Identifier(schema, table)
    )
    # A policy may use a table that the role cannot read: then nothing is visible.
    with suppress(psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege), connection.transaction():
        return connection.execute(text).fetchone() == (True,)
    return False
