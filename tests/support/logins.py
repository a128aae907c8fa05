"""Logins for one test, members of given roles and optionally bound to a tenant, for plain SQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from support.servers import DatabaseServer
from support.waiting import until

Session = psycopg.Connection[tuple[Any, ...]]

_PASSWORD = "of a test"


class Logins:
    """Logins that may connect to one database; :meth:`drop` removes them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: list[str] = []
        self._sessions: list[Session] = []

    def make(self, *roles: str, tenant: str | None = None) -> str:
        """Create a login that is a member of the roles, and bind it to a tenant if one is given."""
        name = f"login_{uuid4().hex[:12]}"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(_PASSWORD))
            )
            self._made.append(name)
            for role in roles:
                connection.execute(
                    sql.SQL("GRANT {} TO {}").format(sql.Identifier(f"eventstore_{role}"), sql.Identifier(name))
                )
            if tenant is not None:
                connection.execute("SELECT bind_login(%s, %s)", (name, tenant))
        return name

    def connect(self, login: str) -> Session:
        """Open a session of a login in autocommit mode; skip the test if the server refuses it."""
        try:
            session = psycopg.connect(make_conninfo(self._url, user=login, password=_PASSWORD), autocommit=True)
        except psycopg.OperationalError as error:
            pytest.skip(f"the server lets no other logins in: {error}")
        self._sessions.append(session)
        return session

    def session(self, *roles: str, tenant: str | None = None) -> Session:
        """Open a session of a new login."""
        return self.connect(self.make(*roles, tenant=tenant))

    def drop(self) -> None:
        """End the sessions and drop the logins."""
        for session in self._sessions:
            session.close()
        with psycopg.connect(self._url, autocommit=True) as connection:
            gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = ANY (%s))"
            until(lambda: connection.execute(gone, (self._made,)).fetchone() == (True,), "the sessions have ended")
            for name in self._made:
                connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name)))
                connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@contextmanager
def logins_of(server: DatabaseServer, url: str) -> Iterator[Logins]:
    """Logins that are dropped afterwards; skip the test if the server's login may not create roles."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = session_user"
        ).fetchone()
    if row != (True,):
        pytest.skip("the login may not create roles")
    made = Logins(url)
    try:
        yield made
    finally:
        made.drop()
