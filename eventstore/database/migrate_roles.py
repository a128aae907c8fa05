"""Adding roles and row-level security to a database that was migrated by a login without CREATEROLE.

Also for a database that was restored without its roles. The missing roles, rights and policies follow from the
comparison with ``db/catalog.tsv``; there is no second list.

There are three transactions, so that programs can go on working. The first makes the roles usable: it creates them and
grants them their rights, while everything still belongs to the login. Then the login's other sessions are ended;
programs connect again, and now set their roles. Old sessions, in which the login has no role, would see an empty log
after the next step and could take it for the whole log: that is why they are ended.

The second transaction gives everything to ``eventstore_owner``. Calls of an append function that began before continue
as the login, so a policy admits the login until they have ended; the third transaction drops it.

Each transaction locks the tables in the order in which appends and workers do, waits a short time for each lock and
then starts again, so that others do not wait behind it for long. A second run changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from eventstore.database.queries import query
from eventstore.database.schema_comparison import (
    CATALOG,
    FORMER_OWNER,
    OWNER,
    CatalogDifference,
    SyncConnection,
    compare_catalog,
    expected_facts,
)

OWNER_OF_LOG = query("eventstore.database", "owner_of_log")
SEARCH = "eventstore_search"
LOGIN_ROLES = ("eventstore_migrator", SEARCH, "eventstore_app", "eventstore_projector", "eventstore_eraser")
"""The roles that a login needs to migrate and to run the service; they include the others."""
_OTHER_TABLES = query("eventstore.database", "other_tables")
_LOCK_FIRST = "LOCK TABLE checkpoints, projection_definitions, bound_logins IN ACCESS EXCLUSIVE MODE"
"""The tables that workers and appends lock first; the sequence of positions and the log follow. In this order, those
that wait do not hold locks that are still needed."""
_PROJECTED = "SELECT, INSERT, UPDATE, DELETE"
_HAS_ROLE = "SELECT pg_has_role(%s, r.oid, %s) FROM pg_roles r WHERE r.rolname = %s"


class RolesPlan:
    """The statements that a database needs, executed as they are derived.

    ``login`` owns everything and runs the service; it keeps its rights through the roles.

    Attributes:
        done: statements that were executed.
        refused: statements that the login may not execute.
    """

    def __init__(self, connection: SyncConnection, schema: str, login: str) -> None:
        self._connection = connection
        self._schema = schema
        self._login_name = login
        self._login = sql.Identifier(login).as_string()
        self.done: list[str] = []
        self.refused: list[str] = []

    def make_usable(self) -> None:
        """Create the roles, their memberships, rights and policies; leave the owners unchanged."""
        self._make_roles()
        if not self.refused:
            self._make_rights()

    def _make_roles(self) -> None:
        for difference in self._differences("role"):
            expected = difference.expected or ""
            if difference.found is None:
                self._execute(f"CREATE ROLE {difference.name} NOLOGIN {expected}".strip())
            else:  # only what differs: only a superuser may revoke SUPERUSER
                found = difference.found.split()
                changes = [f"NO{attribute}".replace("NONO", "") for attribute in found if attribute not in expected]
                changes += [attribute for attribute in expected.split() if attribute not in found]
                self._execute(f"ALTER ROLE {difference.name} {' '.join(changes)}")
        for difference in self._differences("membership"):
            member, _, role = difference.name.partition(" in ")
            if difference.expected is None:
                self._execute(f"REVOKE {role} FROM {member}")
            else:
                inherit = "TRUE" if difference.expected == "inherits" else "FALSE"
                how = f" WITH INHERIT {inherit}" if self._connection.info.server_version >= 160000 else ""
                self._execute(f"GRANT {role} TO {member}{how}")
        roles = [role for kind, role in expected_facts() if kind == "role"]
        # The owner's role first, as in the migrations: it is not granted through another one.
        for role in sorted(roles, key=lambda role: role != OWNER):
            if not self._has_role(role, "USAGE"):
                is_needed = role in LOGIN_ROLES and not self._has_role(role, self._right_to_set)
                self._execute(f"GRANT {role} TO {self._login}", is_needed=is_needed)

    def _make_rights(self) -> None:
        for difference in self._differences("schema"):
            self._execute(f"CREATE SCHEMA {self._schema_name(difference.name)}")
        for difference in self._differences("rights on"):
            self._give_rights(difference)
        policies = [d for d in self._differences("policy") if d.expected is not None and "<owner>" not in d.expected]
        if policies:
            self._execute(_LOCK_FIRST)
        for difference in sorted(policies, key=lambda d: not d.name.endswith(" on events")):
            self._make_policy(difference)
        for difference in self._differences("row-level security on"):
            self._execute(f"ALTER TABLE {difference.name} ENABLE ROW LEVEL SECURITY")
            if difference.expected == "forced":
                self._execute(f"ALTER TABLE {difference.name} FORCE ROW LEVEL SECURITY")

    def hand_over(self) -> None:
        """Give everything to the owner's role, with the policies and the function that name the owner."""
        changed = set()
        differences = self._differences("owner of")
        if differences:
            self._execute(_LOCK_FIRST)
        for difference in sorted(
            differences, key=lambda d: (d.name != "sequence events_position", d.name != "table events")
        ):
            kind, _, name = difference.name.partition(" ")
            changed.add(name)
            if difference.expected == SEARCH:  # needs the right only for the change of owner
                self._execute(f"GRANT CREATE ON SCHEMA {self._schema} TO {SEARCH}")
            self._execute(f"ALTER {kind} {name} OWNER TO {difference.expected}")
            if difference.expected == SEARCH:
                self._execute(f"REVOKE CREATE ON SCHEMA {self._schema} FROM {SEARCH}")
        is_login = f"is_current_role({sql.Literal(self._login_name).as_string()})"
        for (kind, name), detail in expected_facts().items():
            table = name.rpartition(" on ")[2]
            if kind == "policy" and "<owner>" in detail and table in changed:
                self._make_policy(CatalogDifference(kind, name, detail, ""))
                if not name.startswith("open_to_owner on "):
                    continue
                allowed = f"USING ({is_login}) WITH CHECK ({is_login})"
                self._execute(f"CREATE POLICY {FORMER_OWNER} ON {table} TO {self._login} {allowed}")
        for difference in self._differences("policy"):
            if difference.expected is not None:
                self._make_policy(difference)
        definition = expected_facts()["definition of", "may_set_tenant()"]
        if "may_set_tenant()" in changed or self._differences("definition of"):
            self._execute(definition.replace("<owner>", OWNER))
        self._hand_over_other_tables()

    def end_former_owner(self) -> None:
        """Drop the policies that :meth:`hand_over` has created for calls that were in progress."""
        former = [d for d in self._differences("policy") if d.name.startswith(f"{FORMER_OWNER} on ")]
        if former:
            self._execute(_LOCK_FIRST)
        for difference in sorted(former, key=lambda d: not d.name.endswith(" on events")):
            self._execute(f"DROP POLICY {FORMER_OWNER} ON {difference.name.rpartition(' on ')[2]}")

    def needs_owner(self) -> bool:
        """Return whether something does not belong to the owner's role yet."""
        return bool(self._differences("owner of")) or bool(list(self._other_tables()))

    def _hand_over_other_tables(self) -> None:
        for table, name, column, is_live in list(self._other_tables()):
            self._execute(f"ALTER TABLE {table} OWNER TO {OWNER}")
            rights = expected_facts().get(("rights on", f"table {name}"))
            if rights is None:
                rights = f"eventstore_projector={_PROJECTED}, eventstore_reader=SELECT"
                self._execute(f"GRANT {_PROJECTED} ON TABLE {table} TO eventstore_projector")
                self._execute(f"GRANT SELECT ON TABLE {table} TO eventstore_reader")
            else:
                for role, privileges in _rights(rights).items():
                    self._execute(f"GRANT {', '.join(sorted(privileges))} ON TABLE {table} TO {role}")
            arguments = sql.SQL(", ").join([sql.Literal(table), sql.Literal(column)]).as_string()
            self._execute(f"SELECT enable_rls({arguments})")
            search = expected_facts().get(("policy", f"open_to_search on {name}"))
            if search is not None and not is_live:
                self._execute(f"CREATE POLICY open_to_search ON {table} {search}")

    def _other_tables(self) -> Iterator[tuple[str, str, str, bool]]:
        ours = [name for kind, name in expected_facts() if kind == "table"]
        yield from self._connection.execute(_OTHER_TABLES, {"ours": ours}).fetchall()

    def _differences(self, kind: str) -> list[CatalogDifference]:
        rows: list[Any] = self._connection.execute(CATALOG).fetchall()
        found = compare_catalog(rows, expect_roles=True)
        objects = {f"{r[0]} {r[1]}" for r in rows}
        return [
            d
            for d in found.differences
            if d.kind == kind
            and (kind not in ("owner of", "rights on") or d.name.startswith("column ") or d.name in objects)
        ]

    @property
    def _right_to_set(self) -> str:
        return "SET" if self._connection.info.server_version >= 160000 else "MEMBER"

    def _has_role(self, role: str, right: str) -> bool:
        return self._connection.execute(_HAS_ROLE, (self._login_name, right, role)).fetchone() == (True,)

    def _schema_name(self, stage: str) -> str:
        return self._schema if stage == "live" else f"{self._schema[:54]}_{stage}"

    def _give_rights(self, difference: CatalogDifference) -> None:
        kind, _, name = difference.name.partition(" ")
        expected, found = _rights(difference.expected or ""), _rights(difference.found or "")
        for grantee in sorted(expected.keys() | found.keys()):
            for verb, preposition, privileges in (
                ("GRANT", "TO", expected.get(grantee, set()) - found.get(grantee, set())),
                ("REVOKE", "FROM", found.get(grantee, set()) - expected.get(grantee, set())),
            ):
                if not privileges:
                    continue
                if kind == "column":
                    table, _, column = name.partition(".")
                    what = ", ".join(f"{privilege} ({column})" for privilege in sorted(privileges))
                    target = f"TABLE {table}"
                else:
                    what = ", ".join(sorted(privileges))
                    target = f"{kind} {self._schema_name(name) if kind == 'schema' else name}"
                self._execute(f"{verb} {what} ON {target} {preposition} {grantee}")

    def _make_policy(self, difference: CatalogDifference) -> None:
        policy, _, table = difference.name.partition(" on ")
        if difference.found is not None:
            self._execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
        detail = (difference.expected or "").replace("'<owner>'", f"'{OWNER}'").replace("<owner>", OWNER)
        self._execute(f"CREATE POLICY {policy} ON {table} {detail}")

    def _execute(self, statement: str, *, is_needed: bool = True) -> None:
        try:
            with self._connection.transaction():
                self._connection.execute(statement.encode())
        except (
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.InvalidGrantOperation,
            psycopg.errors.UndefinedObject,  # a role that could not be created either
        ):
            if is_needed:
                self.refused.append(statement)
        else:
            self.done.append(statement)


def _rights(detail: str) -> dict[str, set[str]]:
    """Return the privileges by role."""
    return {role: set(re.findall(r"\w+", privileges)) for role, privileges in re.findall(r"(\w+)=([\w ]+)", detail)}
