"""Administrative acts: events of changes to the system, such as to a key, a tenant or a read table, with their actors.

Each tenant has a conversation of them (:data:`ADMINISTRATION`), and so has the system as a whole
(:data:`SYSTEM_TENANT`). The append functions refuse it, no projection sees it, and no user is a member of it: an
auditor reads it as part of the trail. The SQL function ``record_administrative_act`` writes to it, in the transaction
of the act. Triggers record changes of tenants, users, keys, bound logins, holds, rules and pauses.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from psycopg.types.json import Jsonb

from eventstore.database.connection import Connection
from eventstore.database.pools import Pool
from eventstore.database.queries import query
from eventstore.errors import translated
from eventstore.ids import derived_uuid
from eventstore.scope import Caller

ADMINISTRATION = derived_uuid("administration")
"""The conversation of administrative acts, in every tenant; in SQL ``administration_id()``."""
SYSTEM_TENANT = "eventstore:system"
"""The tenant of the acts that concern all tenants."""
ACT_PREFIX = "eventstore."
"""The prefix of the event types of administrative acts."""

_RECORD_ACT = query("eventstore", "record_act")
_SET_ADMINISTRATOR = query("eventstore", "set_administrator")


@dataclass(frozen=True, slots=True)
class Administrator:
    """The actor of administrative acts, with the program and the reason.

    Attributes:
        actor: empty for the login of the database session.
        via: such as ``cli`` or ``console``.
    """

    actor: str = ""
    via: str = ""
    reason: str = ""


_UNKNOWN = Administrator()
_CURRENT: ContextVar[Administrator] = ContextVar("administrator", default=_UNKNOWN)


def administrator() -> Administrator:
    """Return the administrator that :func:`act_as` has set."""
    return _CURRENT.get()


def act_as(acting: Administrator) -> None:
    """Record the acts of the running task, or program, as those of an administrator from now on."""
    _CURRENT.set(acting)


async def set_administrator(connection: Connection) -> None:
    """Set the administrator of the connection's transaction, for the triggers that record acts."""
    await connection.execute(_SET_ADMINISTRATOR, asdict(administrator()))


async def record_act(
    connection: Connection, tenant: str | None, act: str, details: Mapping[str, Any] | None = None, *, reason: str = ""
) -> int:
    """Record an administrative act in the transaction of a connection; return the position of the event.

    The horizon stays below the event until the transaction ends, and other acts of the tenant wait: call it last.

    Args:
        connection: of the role of the service, the projector or the owner, or of a login that migrates.
        tenant: the tenant that it concerns; None for the whole system.
        act: what was done, in lower case, such as ``key_revoked``.
        details: what it was done to.
        reason: why; by default what the administrator gives.
    """
    given = asdict(administrator()) | {"tenant": tenant, "act": act, "details": Jsonb(dict(details or {}))}
    cursor = await connection.execute(_RECORD_ACT, given | ({"reason": reason} if reason else {}))
    [(position,)] = await cursor.fetchall()
    return int(position)


async def record_reading(service: Pool, tenant: str, what: str, details: Mapping[str, Any]) -> None:
    """Record that somebody reads the trail of a tenant, before they get it.

    Args:
        service: the connections of the service.
        what: the command, or the path of the request.
        details: what selects the events; values that are None are left out.
    """
    given = {
        name: value if isinstance(value, int | list) else str(value)
        for name, value in details.items()
        if value is not None
    }
    with translated():
        async with service.transaction(Caller(tenant)) as connection:
            await record_act(connection, tenant, "trail_read", {"what": what, **given})
