"""What the embedded server needs inside before anybody uses it: a login that is no superuser, and its database."""

from __future__ import annotations

from pathlib import Path
from time import sleep

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from eventstore.database.cluster import LOGIN, SOCKET_PORT, SUPERUSER
from eventstore.database.refusal import ACCEPTED, STARTING, refusal

_SECONDS_BETWEEN_LOOKS = 0.05


def provision(socket_dir: Path, database: str, password: str | None) -> str:
    """Make the login and its database where they are missing, and return the server's version.

    Args:
        socket_dir: the folder of the server's socket.
        database: its name.
        password: what the login is to use over TCP; None leaves it as it is.

    Raises:
        psycopg.Error: the server refuses.
    """
    with _connected(socket_dir) as connection:
        if not _exists(connection, "SELECT FROM pg_roles WHERE rolname = %s", LOGIN):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE NOSUPERUSER").format(sql.Identifier(LOGIN)))
        if not _exists(connection, "SELECT FROM pg_database WHERE datname = %s", database):
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(database), sql.Identifier(LOGIN)
                )
            )
        if password is not None:
            _set_password(connection, password)
        major, minor = divmod(connection.info.server_version, 10000)
        return f"{major}.{minor}"


def _connected(socket_dir: Path) -> psycopg.Connection[tuple[object, ...]]:
    """Connect as the superuser. Wait while the server recovers: it does so again after a process of it was killed."""
    # Everything that the caller's PG* variables could change is given.
    conninfo = make_conninfo(
        host=str(socket_dir),
        port=SOCKET_PORT,
        user=SUPERUSER,
        dbname="postgres",
        sslmode="disable",
        gssencmode="disable",
        options="",
        connect_timeout=60,
    )
    while True:
        try:
            return psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError:
            if refusal(conninfo) not in (STARTING, ACCEPTED):
                raise
        sleep(_SECONDS_BETWEEN_LOOKS)


def _exists(connection: psycopg.Connection[tuple[object, ...]], query: str, name: str) -> bool:
    return connection.execute(query.encode(), [name]).fetchone() is not None


def _set_password(connection: psycopg.Connection[tuple[object, ...]], password: str) -> None:
    # Hashed here, so that the password itself reaches neither the server nor its log.
    hashed = connection.pgconn.encrypt_password(password.encode(), LOGIN.encode(), b"scram-sha-256")
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(LOGIN), sql.Literal(hashed.decode())))
