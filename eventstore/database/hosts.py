"""Several hosts in one URL: the one that was reached last is tried first.

libpq tries them in their order for each connection. After a failover the first one may be a machine that does not
answer, and every new connection would wait for it in vain.
"""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq.abc import PGconn

_LISTS = ("host", "hostaddr", "port")
_reached: dict[str, int] = {}


def reordered(conninfo: str) -> str:
    """Return the connection string with its hosts rotated so that the one reached last comes first."""
    first = _reached.get(conninfo, 0)
    if not first:
        return conninfo
    lists = _lists(conninfo)
    return make_conninfo(conninfo, **{name: ",".join(each[first:] + each[:first]) for name, each in lists.items()})


def remember(conninfo: str, reached: PGconn) -> None:
    """Note which host a connection has reached."""
    lists = _lists(conninfo)
    number = max(map(len, lists.values()), default=1)
    if number < 2:
        return
    hosts = lists.get("host") or lists["hostaddr"]
    ports = lists.get("port") or []
    address = reached.host.decode(), reached.port.decode()
    for index in range(number):
        if address == (hosts[index], ports[index] if index < len(ports) else address[1]):
            _reached[conninfo] = index
            return


def _lists(conninfo: str) -> dict[str, list[str]]:
    given = conninfo_to_dict(conninfo)
    # A single value, such as a port for all, is not a list.
    return {name: str(given[name]).split(",") for name in _LISTS if "," in str(given.get(name) or "")}
