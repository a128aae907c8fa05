"""URLs that may hold secrets: shown without them, and refused if it is unclear which part is one.

A password that is not percent-encoded moves the borders of a URL's parts: of ``postgresql://me:12/SECRET@host/db``
parsers take ``12`` for a port and the rest for a path, and put them into their error messages. So a URL is shown, or
handed to a parser, only if it has one reading; of every other text nothing is shown but a known scheme.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from eventstore.errors import SettingsError, printable

_ENCODED = r"%(?!00)[0-9A-Fa-f]{2}"
_TEXT = rf"(?:{_ENCODED}|[^%/?#@\[\]:\s\x00-\x1f\x7f])*"
_HOST = rf"(?:\[[0-9A-Fa-f:.%]+\]|(?:{_ENCODED}|[^%/?#@\[\]:,&=\s\x00-\x1f\x7f])*)(?::[0-9]{{0,5}})?"
_URL = re.compile(
    rf"(?:(?P<scheme>[a-z][a-z0-9.-]*(?:\+[a-z0-9.-]+)?)://)?"
    rf"(?:(?P<user>{_TEXT})(?P<password>:(?:{_TEXT}|:)*)?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    rf"(?P<path>(?:/(?:{_ENCODED}|[^%?#@\s\x00-\x1f\x7f])*)?)"
    r"(?:\?(?P<query>(?:[^=&?#@\s\x00-\x1f\x7f]+=[^=&?#@\s\x00-\x1f\x7f]*(?:&(?!$)|$))*))?",
    re.IGNORECASE,
)
_KNOWN_SCHEMES = ("http", "https", "postgres", "postgresql")
_HARMLESS = frozenset((
    "application_name", "channel_binding", "connect_timeout", "dbname", "gssencmode", "host", "hostaddr",
    "load_balance_hosts", "port", "sslmode", "target_session_attrs", "user",
))  # fmt: skip
"""Parameters of libpq that never hold a secret."""
HIDDEN = "…"


def show_url(text: str) -> str:
    """Return a URL as it may be shown to everybody; total over any text.

    The result has no password. It has the user only in URLs of PostgreSQL (elsewhere it can be a token), and a query
    only if all of its parameters are harmless. A text that has more than one reading, or none, is hidden.
    """
    found = _URL.fullmatch(text)
    scheme = (found["scheme"] if found else text.partition("://")[0] if "://" in text else "") or ""
    known = scheme.lower().partition("+")[0] in _KNOWN_SCHEMES
    if found is None or (scheme and not known):
        return f"{scheme.lower().partition('+')[0]}://{HIDDEN}" if known else HIDDEN
    is_postgresql = scheme.lower().startswith("postgres")
    user = f"{found['user']}@" if found["user"] and is_postgresql else ""
    query = found["query"] or ""
    if not is_postgresql or not {pair.partition("=")[0] for pair in query.split("&")} <= _HARMLESS:
        query = ""
    return (f"{scheme}://" if scheme else "") + user + found["hosts"] + found["path"] + (f"?{query}" if query else "")


def has_password_parameter(text: str) -> bool:
    """Whether the query of a URL may hold a password; what a parser says of it may then quote a part of it."""
    return "password" in unquote(text.partition("?")[2]).lower()


def show_name(text: str) -> str:
    """Return a text as it may be shown, of which it is unclear whether it is a URL, a path or another name."""
    return show_url(text) if "@" in text or "://" in text or "password" in text.lower() else printable(text)


def check_url(text: str, name: str) -> str:
    """Return a URL that has one reading.

    Args:
        name: of the setting or option, for the error.

    Raises:
        SettingsError: it has none, or several; the error does not quote it.
    """
    if _URL.fullmatch(text) is None:
        raise SettingsError(
            f"{name}: is not a URL, or can be read in more than one way: write user, password and parameters "
            "percent-encoded (@ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25)"
        )
    return text
