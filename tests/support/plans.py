"""The execution of a statement: its plan as it was executed, with what it read and what it wrote.

A statement is prepared as the driver prepares it, with the same types of parameters, and the prepared statement is
explained: so both kinds of plan can be seen between which the server chooses once the driver has prepared a query
that comes often.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, TransactionStatus

Kind: TypeAlias = Literal["force_custom_plan", "force_generic_plan"]

_OPTIONS = "ANALYZE, BUFFERS, WAL, VERBOSE, TIMING OFF, FORMAT JSON"
_PARAMETERS = re.compile(r"%\((\w+)\)([sbt])")
_INSIDE = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_wal": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "notice",
}


@dataclass(frozen=True)
class Plan:
    """An executed plan, as EXPLAIN's JSON has it.

    Attributes:
        root: its topmost node; the counts of a node include those of the nodes below it.
        statement: the statement's text, where it ran inside another one.
    """

    root: dict[str, Any]
    statement: str = ""

    @cached_property
    def nodes(self) -> list[dict[str, Any]]:
        """All nodes that were executed, the topmost first, except the subquery of row-level security on the login."""
        return [node for node in _walk(self.root) if node.get("Relation Name") != "bound_logins"]

    @property
    def kinds(self) -> set[str]:
        """The types of its nodes, such as ``Index Scan``."""
        return {node["Node Type"] for node in self.nodes}

    @property
    def indexes(self) -> set[str]:
        """The names of the indexes that it uses."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def rows(self) -> int:
        """Return how many rows it returned."""
        return int(self.root["Actual Rows"])

    @property
    def filtered(self) -> int:
        """Return how many rows it looked at and threw away."""
        return sum(round(node.get("Rows Removed by Filter", 0) * node["Actual Loops"]) for node in self.nodes)

    @property
    def buffers(self) -> int:
        """Pages of tables and indexes that it touched, whether they were in memory or not."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    @property
    def wal_records(self) -> int:
        """Records that it wrote to the write-ahead log."""
        return int(self.root["WAL Records"])

    @property
    def wal_bytes(self) -> int:
        """Bytes that it wrote to the write-ahead log, whole pages after a checkpoint included."""
        return int(self.root["WAL Bytes"])

    @property
    def text(self) -> str:
        """The plan as a text, for the message of a failed assertion."""
        return json.dumps(self.root, indent=1)


def explain(
    connection: psycopg.Connection[Any],
    text: str,
    parameters: Mapping[str, Any],
    *,
    kind: Kind = "force_custom_plan",
) -> Plan:
    """Runs a query once, its effects included, and returns its plan.

    Args:
        text: with parameters by name, as in the ``.sql`` files.
        kind: planned for these values, or once for all values.
    """
    formats = {name: PyFormat(form) for name, form in _PARAMETERS.findall(text)}
    numbers = {name: f"${number}" for number, name in enumerate(formats, 1)}
    numbered = _PARAMETERS.sub(lambda found: numbers[found[1]], text)
    values = [parameters[name] for name in formats]
    transformer = Transformer(connection)
    transformer.dump_sequence(values, list(formats.values()))
    prepared = connection.pgconn.prepare(b"explained", numbered.encode(), transformer.types)
    if prepared.status != ExecStatus.COMMAND_OK:
        raise psycopg.ProgrammingError(prepared.get_error_message())
    literals = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values))) if values else sql.SQL("")
    try:
        connection.execute(sql.SQL("SET plan_cache_mode = {}").format(sql.SQL(kind)))
        rows = connection.execute(sql.SQL("EXPLAIN ({}) EXECUTE explained{}").format(sql.SQL(_OPTIONS), literals))
        [[[top]]] = rows.fetchall()
    finally:
        if connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute("RESET plan_cache_mode")
            connection.execute("DEALLOCATE explained")
    return Plan(top["Plan"])


def explain_inside(superuser: psycopg.Connection[Any], text: str, parameters: Mapping[str, Any]) -> list[Plan]:
    """Runs a query and returns the plans of the statements inside the functions that it calls, and its own, last.

    Args:
        superuser: a connection that may load ``auto_explain``, which listens to it from then on.
    """
    plans: list[Plan] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        message = notice.message_primary or ""
        if message.startswith("duration: ") and "plan:\n" in message:
            found = json.loads(message.partition("plan:\n")[2])
            plans.append(Plan(found["Plan"], found["Query Text"]))

    superuser.execute("LOAD 'auto_explain'")
    superuser.execute(" ".join(f"SET {name} = {value};" for name, value in _INSIDE.items()))
    superuser.add_notice_handler(hear)
    try:
        superuser.execute(text, parameters)
    finally:
        superuser.remove_notice_handler(hear)
        superuser.execute("SET auto_explain.log_min_duration = -1")
    return plans


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if node.get("Actual Loops") == 0:  # such as the check of a user, if none is set
        return
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)
