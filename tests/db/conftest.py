"""Fixtures of logins for one test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from support.catalog import roles_of_the_store
from support.logins import Logins, Session, logins_of
from support.servers import DatabaseServer


@pytest.fixture
def logins(server: DatabaseServer, database_url: str) -> Iterator[Logins]:
    """Logins for the test's database."""
    with psycopg.connect(database_url) as connection:
        if not roles_of_the_store(connection):
            pytest.skip("the login may not create roles, so there is no row-level security")
    with logins_of(server, database_url) as made:
        yield made


@pytest.fixture
def service(logins: Logins) -> Session:
    """A session of a login of the service, as the writer."""
    session = logins.session("app")
    session.execute("SET ROLE eventstore_writer")
    return session
