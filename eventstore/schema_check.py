"""The check of the schema when a store opens."""

from __future__ import annotations

import psycopg
from psycopg import sql

from eventstore.database.connection import APP, BOOKKEEPING, Connection, set_role
from eventstore.database.migrate import check_versions, newer_versions
from eventstore.database.queries import query
from eventstore.database.schema_comparison import CATALOG, compare_catalog, describe, missing_events, remedy
from eventstore.errors import SchemaError, SchemaTooNew, translated
from eventstore.settings import Settings

LOG_INTEGRITY = query("eventstore", "log_integrity")


async def check_schema(connection: Connection, settings: Settings) -> None:
    """Refuse a schema with which events could be lost, misread or visible to other tenants.

    Raises:
        SchemaError: migrations are missing; newer ones have changed what this code needs; the schema lacks an object
            that they make; the sequence of positions was altered, or is below the last event; or events are missing.
    """
    table = sql.Identifier(settings.db_schema, BOOKKEEPING)
    with translated():
        async with connection.transaction():
            await set_role(connection, settings, APP)
            try:
                rows = await (await connection.execute(sql.SQL("SELECT version FROM {}").format(table))).fetchall()
            except psycopg.errors.UndefinedTable:
                rows = []
            check_versions(recorded := {str(version) for (version,) in rows})
            comparison = compare_catalog(await (await connection.execute(CATALOG)).fetchall())
            if (differences := comparison.structural()) and (newer := newer_versions(recorded)):
                raise SchemaTooNew(
                    f"migrations that this version does not know ({', '.join(newer)}) have changed what it needs: "
                    f"{describe(differences)}: upgrade flowagents-eventstore"
                )
            if differences:
                roles = f"; missing roles: {', '.join(comparison.missing_roles)}" if comparison.missing_roles else ""
                raise SchemaError(
                    f"the schema is not as the migrations make it: {describe(differences)}{roles}: "
                    f"{remedy(differences)}"
                )
            row = await (await connection.execute(LOG_INTEGRITY)).fetchone()
    if problem := log_problem(*row or (False, False, 0, 0)):
        raise SchemaError(problem)


def log_problem(is_unaltered: bool, is_ahead: bool, last_event: int, last_checkpoint: int) -> str:
    """Return a sentence if events are missing, or if the sequence of positions cannot be trusted; otherwise empty.

    Args:
        is_unaltered, is_ahead, last_event, last_checkpoint: the columns of the query ``log_integrity``.
    """
    if missing := missing_events(last_event, last_checkpoint):
        return missing[0]
    if not is_unaltered:
        return (
            "the sequence events_position was altered, and readers could miss events: "
            "ALTER SEQUENCE events_position CACHE 1 INCREMENT 1 NO CYCLE"
        )
    if not is_ahead:
        return (
            "the sequence events_position is below the last event, as after a copy of the rows alone: "
            "SELECT setval('events_position', max(position)) FROM events"
        )
    return ""
