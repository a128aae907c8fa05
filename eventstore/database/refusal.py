"""Why a server refuses a connection, in whatever language it says so.

libpq gives the text of such an error and not its SQLSTATE. Its protocol trace has the code, so a second attempt is made
with the trace on, as soon as the first one has failed.
"""

from __future__ import annotations

import os
import re
import selectors
import sys
from time import monotonic

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, PollingStatus, abc

STARTING = "57P03"
"""The server does not accept connections yet, or no longer."""
ACCEPTED = "00000"
"""The second attempt succeeded."""

_WRONG_PASSWORD = "28P01"
_SECONDS = 2.0
_ERROR = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')


def refusal(url: str) -> str:
    """Connect once more, to the last host that a URL names, and return the SQLSTATE with which it refuses.

    Blocks for a short time. A server that asks for a password, where none is given, counts as refusing by 28P01.

    Returns:
        The SQLSTATE; ``ACCEPTED`` if it does not refuse any more; empty if it sends no error.
    """
    given = conninfo_to_dict(url)
    last = {name: str(given[name]).split(",")[-1] for name in ("host", "hostaddr", "port") if given.get(name)}
    connection = PGconn.connect_start(make_conninfo(url, **last).encode())
    try:
        if sys.platform != "linux":  # psycopg traces nowhere else
            return ACCEPTED if _connect(connection) else _WRONG_PASSWORD if connection.needs_password else ""
        # In memory: what the client sends is in the trace as well.
        with open(os.memfd_create("trace"), "rb") as trace:
            connection.trace(trace.fileno())
            if _connect(connection):
                return ACCEPTED
            connection.untrace()
            trace.seek(0)
            errors = _ERROR.findall(trace.read())
        if errors:
            return str(errors[-1].decode())
        return _WRONG_PASSWORD if connection.needs_password else ""
    finally:
        connection.finish()


def _connect(connection: abc.PGconn) -> bool:
    give_up_at = monotonic() + _SECONDS
    while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
        with selectors.DefaultSelector() as selector:
            way = selectors.EVENT_READ if status == PollingStatus.READING else selectors.EVENT_WRITE
            selector.register(connection.socket, way)
            if not selector.select(max(0.0, give_up_at - monotonic())):
                return False
    return status == PollingStatus.OK
