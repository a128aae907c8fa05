"""Redaction and checks of URLs that may contain secrets.

A password that is not percent-encoded shifts the parts of a URL: parsers read ``12`` in
``postgresql://me:12/SECRET@host/db`` as a port and the rest as a path, and quote them in their errors. So a URL is
shown, or passed to a parser, only if it is unambiguous; of any other text only a known scheme is shown.
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
"""Parameters of libpq that never contain a secret."""
HIDDEN = "…"


def show_url(text: str) -> str:
    """Return a URL without secrets, for any text.

    The result has no password. It has the user only in URLs of PostgreSQL (in others it can be a token), and the query
    only if all of its parameters are harmless. A text that is ambiguous or not a URL is hidden.
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
    """Return whether the query of a URL may contain a password, which a parser could quote in its error."""
    return "password" in unquote(text.partition("?")[2]).lower()


def show_name(text: str) -> str:
    """Return a text without secrets that may be a URL, a path or another name."""
    return show_url(text) if "@" in text or "://" in text or "password" in text.lower() else printable(text)


def check_url(text: str, name: str) -> str:
    """Return a URL if it is unambiguous.

    Args:
        name: name of the setting or option, for the error.

    Raises:
        SettingsError: it is ambiguous or not a URL; the error does not quote it.
    """
    if _URL.fullmatch(text) is None:
        raise SettingsError(
            f"{name}: is not a URL, or can be read in more than one way: write user, password and parameters "
            "percent-encoded (@ as %40, / as %2F, : as %3A, ? as %3F, # as %23, % as %25)"
        )
    return text
