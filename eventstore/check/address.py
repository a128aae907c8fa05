"""URLs of the server under check: with the name by which its sessions are known, and through the proxy."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict

from eventstore.check.proxy import Proxy

_IN_PLACE = ("user", "password", "dbname")


def named(url: str, application_name: str) -> str:
    """The same server for sessions of this name."""
    return _url(_parts(url) | {"application_name": application_name})


def through(url: str, proxy: Proxy, host: str) -> str:
    """The same server by way of a proxy.

    Args:
        host: where the server is; a certificate is still checked against it.
    """
    parts = _parts(url) | {"port": str(proxy.port)}
    if host.startswith("/"):
        return _url(parts | {"host": proxy.host})
    return _url(parts | {"host": host, "hostaddr": proxy.host})


def _parts(url: str) -> dict[str, str]:
    return {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}


def _url(parts: dict[str, str]) -> str:
    user, password, database = (quote(parts.get(name, ""), safe="") for name in _IN_PLACE)
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    options = {name: value for name, value in parts.items() if name not in _IN_PLACE}
    return f"postgresql://{login}/{database}?{urlencode(options, quote_via=quote)}"
