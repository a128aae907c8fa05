"""The SQLSTATE with which a server refuses a connection, independent of the server's language.

libpq reports only the text of such an error. Its protocol trace contains the SQLSTATE, so when a connection has failed,
a second attempt is made with the trace on.
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
"""The SQLSTATE of a server that does not accept connections yet, or no longer."""
ACCEPTED = "00000"
"""The second attempt succeeded."""

_WRONG_PASSWORD = "28P01"
_SECONDS = 2.0
_ERROR = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')


def refusal_sqlstate(url: str) -> str:
    """Connect once more, to the last host of a URL, and return the SQLSTATE with which the server refuses.

    Blocks for up to two seconds. If the server asks for a password and the URL has none, that is 28P01.

    Returns:
        The SQLSTATE; ``ACCEPTED`` if the server accepts the connection; empty if it sends no error.
    """
    parameters = conninfo_to_dict(url)
    last = {name: str(parameters[name]).split(",")[-1] for name in ("host", "hostaddr", "port") if parameters.get(name)}
    connection = PGconn.connect_start(make_conninfo(url, **last).encode())
    try:
        if sys.platform != "linux":  # psycopg has the trace only there
            return ACCEPTED if _connect(connection) else _WRONG_PASSWORD if connection.needs_password else ""
        # In memory: the trace also contains what the client sends, such as its password.
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
    deadline = monotonic() + _SECONDS
    while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
        with selectors.DefaultSelector() as selector:
            event = selectors.EVENT_READ if status == PollingStatus.READING else selectors.EVENT_WRITE
            selector.register(connection.socket, event)
            if not selector.select(max(0.0, deadline - monotonic())):
                return False
    return status == PollingStatus.OK
