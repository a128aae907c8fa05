"""The server of the tests, and their databases: one for a module whose tests are each a tenant, or one for a test."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import psycopg
import pytest
import uvicorn.server
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from support.environment import TREE, clear_settings
from support.examples import WHOLE, fewer
from support.fork_server import ForkServer
from support.leftovers import TemporaryFolder, open_sockets
from support.processes import EVENTSTORE, Commands, commands
from support.servers import Choice, DatabaseServer, choose, embedded_server, memory_folder, open_folder
from support.tenants import TenantStore

from agent_manager.settings import ServerSettings
from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.database.embedded.embedded_server import EmbeddedServer
from projections import Worker

# Without a deadline, because a database may be slow; each example uses its own tenant or conversation.
hypothesis_settings.register_profile(
    "whole",
    deadline=None,
    database=None,
    max_examples=WHOLE,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
hypothesis_settings.register_profile("fast", hypothesis_settings.get_profile("whole"), max_examples=fewer(WHOLE))

_SLOW = {"benchmark", "checker", "faults"}
"""Folders and files of measurements, of the checker of the order, and of servers that are killed."""
_PROCESSES = 1.5
"""Processes that share the tests for each processor: they wait for a fifth of their time, slow tests for half of it."""
_FULL_COLLECTION_EVERY = 100
"""Garbage collections of the middle generation between two full ones, which look through all that the tests have
imported: a tenth of a second. Python's default is 10."""
_UVICORN_PAUSE = 0.01
"""Seconds that uvicorn pauses at most where it would a tenth of a second, as it does in each shutdown: these tests have
six hundred of them."""
_CHOICE = pytest.StashKey[Choice]()
_FOLDER = pytest.StashKey[TemporaryFolder]()
_LEFT = pytest.StashKey[list[str]]()
_NUMBERS = count(1)


def _shares_database(node: pytest.Item) -> bool:
    return node.get_closest_marker("shared_database") is not None and node.get_closest_marker("own_database") is None


async def _short_sleep(seconds: float) -> None:
    await asyncio.sleep(min(seconds, _UVICORN_PAUSE))


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples hypothesis tries, before the tests are imported; find ``tools``; pause less.

    Last on the path, so that the packages are those that are installed, and only ``tools`` comes from the repository.
    """
    sys.path.append(str(TREE))
    uvicorn.server.asyncio = SimpleNamespace(**vars(asyncio) | {"sleep": _short_sleep})  # type: ignore[assignment]
    gc.set_threshold(*gc.get_threshold()[:2], _FULL_COLLECTION_EVERY)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts programs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # so that the processes of tests can be interrupted
    hypothesis_settings.load_profile("fast" if "not slow" in config.option.markexpr else "whole")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Create the temporary folder of the run before the worker processes start."""
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_FOLDER] = TemporaryFolder()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run if a test has left a process, a socket or a file."""
    sockets = open_sockets()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["sockets"] = sockets
    if (folder := session.config.stash.get(_FOLDER, None)) is not None:
        session.config.stash[_LEFT] = left = session.config.stash.get(_LEFT, []) + sockets + folder.leftovers()
        if left and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        folder.close(keep=session.exitstatus != pytest.ExitCode.OK)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take down the sockets that a process which shared the tests has left open."""
    sockets = getattr(node, "workeroutput", {}).get("sockets", [])
    node.config.stash[_LEFT] = node.config.stash.get(_LEFT, []) + sockets


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List what the tests have left."""
    if left := config.stash.get(_LEFT, []):
        terminalreporter.section("left behind by the tests", red=True)
        for one in left:
            terminalreporter.line(one)


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes that share the tests."""
    return round(_PROCESSES * (psutil.cpu_count() or 1))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of whole folders as slow; and, for ``-m slow``, those that then try more examples.

    More examples cover no more lines than few, and take half as long again while lines are counted. The folders come
    first: a process that has none left takes over the last tests of another, which should be short.
    """
    tries_more = config.option.markexpr == "slow"
    for item in items:
        is_tried_with_examples = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if _is_in_slow_folder(item):
            item.add_marker(pytest.mark.slow)
        elif tries_more and is_tried_with_examples and item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.no_cover)
    items.sort(key=_is_in_slow_folder, reverse=True)


def _is_in_slow_folder(item: pytest.Item) -> bool:
    return bool(_SLOW.intersection(item.path.relative_to(Path(__file__).parent).with_suffix("").parts))


def pytest_report_header(config: pytest.Config) -> str:
    """Name the server that the tests will use."""
    config.stash[_CHOICE] = choose()
    return f"PostgreSQL for the tests: {config.stash[_CHOICE].text}"


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """The server, one for the whole session."""
    with ExitStack() as stack:
        yield (request.config.stash.get(_CHOICE, None) or choose()).start(stack)


@pytest.fixture
def own_server() -> Iterator[EmbeddedServer]:
    """An embedded server for one test, which it may kill, with the empty database ``flowagents``."""
    with open_folder(memory_folder()) as folder, embedded_server(folder / "server") as own:
        yield own
        own.acquire()
        own.ensure_running()  # removes the shared memory that a killed server has left


@pytest.fixture(scope="module")
def module_database(server: DatabaseServer) -> Iterator[str]:
    """The name of a database with the schema of the store, for all tests of a module."""
    name = server.create_database()
    yield name
    server.drop_database(name)


@pytest.fixture
def fresh_database(server: DatabaseServer) -> Iterator[str]:
    """The name of a database with the schema of the store, for one test."""
    name = server.create_database()
    yield name
    server.drop_database(name)


@pytest.fixture
def is_shared(request: pytest.FixtureRequest) -> bool:
    """Return whether the test shares the database of its module."""
    return _shares_database(request.node)


@pytest.fixture
def database(request: pytest.FixtureRequest, is_shared: bool) -> str:
    """The name of the test's database, which has the schema of the store."""
    return str(request.getfixturevalue("module_database" if is_shared else "fresh_database"))


@pytest.fixture
def database_url(server: DatabaseServer, database: str) -> str:
    """The URL of the test's database, which has the schema of the store."""
    return server.url(database)


@pytest.fixture
def own_tenant(is_shared: bool) -> str:
    """The test's tenant: a unique one in a shared database, the default one in its own database."""
    return f"tenant-{next(_NUMBERS)}" if is_shared else "default"


@pytest.fixture
def superuser_url(server: DatabaseServer, database: str) -> str:
    """The URL of the same database for the superuser."""
    return server.superuser_url_of(database)


@pytest.fixture
def events_after_deletions(superuser_url: str, is_shared: bool) -> None:
    """Let the log accept events of deleted conversations: projections must handle any order of events."""
    assert not is_shared, "another test's log would accept them too: mark the test with own_database"
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(
            "CREATE OR REPLACE FUNCTION deleted_conversation_accepts(event_type text) RETURNS boolean "
            "LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true"
        )


@pytest.fixture
def empty_database_url(server: DatabaseServer) -> Iterator[str]:
    """The URL of a fresh database with nothing in it."""
    name = server.create_database(migrated=False)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting comes from the caller's environment or ``.env``."""
    clear_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer | list[str]]:
    """The process that forks those of the command line; on other systems than Linux, the program that starts them."""
    if sys.platform != "linux":
        yield EVENTSTORE
        return
    with ForkServer() as server:
        yield server


@pytest.fixture
def started(clean_environment: None, tmp_path: Path, fork_server: ForkServer | list[str]) -> Iterator[Commands]:
    """Commands in processes of their own; those that still run at the end of the test are ended."""
    with commands(tmp_path / "output", fork_server) as running:
        yield running


@pytest.fixture
def settings(clean_environment: None, database_url: str, own_tenant: str) -> Settings:
    """Settings for the test's database and tenant."""
    return ServerSettings(database_url=database_url, tenant=own_tenant)


@pytest.fixture(scope="module")
async def module_store(server: DatabaseServer, module_database: str) -> AsyncIterator[EventStore]:
    """An open store on the module's database."""
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        settings = ServerSettings(_env_file=None, database_url=server.url(module_database))
    async with EventStore(settings) as store:
        yield store


@pytest.fixture
async def fresh_store(settings: Settings) -> AsyncIterator[EventStore]:
    """An open store on the test's database, for one test."""
    async with EventStore(settings) as store:
        yield store


@pytest.fixture
def store(request: pytest.FixtureRequest, is_shared: bool, settings: Settings) -> EventStore:
    """An open store on the test's database, for the test's tenant."""
    if is_shared:
        return TenantStore(request.getfixturevalue("module_store"), settings.tenant)
    opened = request.getfixturevalue("fresh_store")
    assert isinstance(opened, EventStore)
    return opened


@pytest.fixture(scope="module")
async def module_worker(module_store: EventStore) -> AsyncIterator[None]:
    """A worker that keeps up the read tables of the module's database."""
    worker = asyncio.create_task(Worker(module_store).run())
    yield
    await cancel_and_wait([worker])


@pytest.fixture
def works(request: pytest.FixtureRequest, is_shared: bool) -> bool:
    """Return whether managers and servers of the test run a worker; the database of a module has one already."""
    if is_shared:
        request.getfixturevalue("module_worker")
    return not is_shared
