"""Roles: the migrations work for a login that may make roles, for one that may not, and beside other databases."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from support.catalog import roles_of_the_store
from support.environment import TREE
from support.raw import append_raw, note
from support.rights import ROLES as EVERY_ROLE
from support.waiting import until_async

from eventstore import EventStore, MessageAdded, Settings
from eventstore.database.connection import BOOKKEEPING
from eventstore.database.embedded.embedded_server import EmbeddedServer
from eventstore.database.migrate import Migrator
from eventstore.errors import ConnectionLost, PermissionDenied, ServerUnreachable
from projections import PROJECTIONS, InlineAppender, Projection, Worker, rebuild, undo_rebuild, verify

ROLES = {f"eventstore_{role}" for role in EVERY_ROLE}


@pytest.fixture
def superuser(clean_environment: None, own_server: EmbeddedServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The superuser of a server on which nothing has been migrated yet."""
    with psycopg.connect(own_server.superuser_url, autocommit=True) as connection:
        yield connection


def with_password(url: str) -> str:
    """The URL of a login that needs one: before PostgreSQL 16 others than the store's own do, over the socket, too."""
    return url.replace("@", ":secret@", 1)


def migrate(url: str) -> Migrator:
    migrator = Migrator(url, Settings(database_url=url))
    migrator.up()
    return migrator


async def use(url: str) -> None:
    async with EventStore(Settings(database_url=url)) as store:
        await store.append(note.conversation, [note(1)])
        assert [event.content async for event in store.read_log()] == [1]


async def test_a_login_that_may_not_create_roles_works_without_them(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    migrate(own_server.url())
    assert roles_of_the_store(superuser) == {}
    await use(own_server.url())


async def test_a_login_that_may_not_create_roles_works_beside_existing_roles(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    for role in ROLES:
        superuser.execute(f"CREATE ROLE {role} NOLOGIN")
    migrate(own_server.url())
    await use(own_server.url())


def test_roles_to_which_the_login_may_not_grant_are_reported(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    for role in ROLES:
        superuser.execute(f"CREATE ROLE {role} NOLOGIN")
    superuser.execute("GRANT eventstore_migrator, eventstore_app, eventstore_projector TO eventstore")
    migrator = migrate(own_server.url())
    assert "row-level security is not in force: the log belongs to a login" in migrator.findings()[0]
    with pytest.raises(PermissionDenied, match="GRANT eventstore_owner TO eventstore_migrator"):
        migrator.make_roles()
    assert migrate(own_server.superuser_url).make_roles() != []
    assert migrator.findings() == []


async def test_a_login_with_the_roles_granted_works(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    for role in ROLES:
        superuser.execute(f"CREATE ROLE {role} NOLOGIN")
        superuser.execute(f"GRANT {role} TO eventstore")
    migrate(own_server.url())
    owner = superuser.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'events'").fetchone()
    assert owner == ("eventstore_owner",)
    await use(own_server.url())


async def test_a_superuser_may_migrate_and_the_login_use_it(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    migrate(own_server.superuser_url)
    assert set(roles_of_the_store(superuser)) == ROLES
    superuser.execute("GRANT eventstore_app TO eventstore")
    await use(own_server.url())


@pytest.mark.slow
def test_the_roles_are_dropped_with_the_last_database_that_uses_them(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("CREATE DATABASE second OWNER eventstore TEMPLATE template0")
    first, second = migrate(own_server.url()), migrate(own_server.url(database="second"))
    while first.down():
        pass
    assert set(roles_of_the_store(superuser)) == ROLES
    while second.down():
        pass
    assert roles_of_the_store(superuser) == {}


DEFINITIONS = """
SELECT format('%s owner %s acl %s', c.oid::regclass, c.relowner::regrole, pg_temp.sorted(
                  coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner))))
  FROM pg_class c
 WHERE c.relnamespace::regnamespace::text LIKE 'public%' AND c.relkind IN ('r', 'S', 'v')
 UNION ALL
SELECT format('%s.%s acl %s', a.attrelid::regclass, a.attname, pg_temp.sorted(a.attacl))
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'public'::regnamespace AND a.attacl IS NOT NULL
 UNION ALL
SELECT format('%s owner %s acl %s', pg_get_functiondef(p.oid), p.proowner::regrole,
              pg_temp.sorted(coalesce(p.proacl, acldefault('f', p.proowner))))
  FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
 UNION ALL
SELECT format('policy %s on %s %s %s %s %s', y.polname, y.polrelid::regclass, y.polcmd,
              (SELECT array_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE r::regrole::text END) FROM unnest(y.polroles) AS r),
              pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid))
  FROM pg_policy y
 UNION ALL
SELECT format('%s security %s %s', c.oid::regclass, c.relrowsecurity, c.relforcerowsecurity)
  FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
 UNION ALL
SELECT format('schema %s acl %s', n.nspname, pg_temp.sorted(n.nspacl))
  FROM pg_namespace n WHERE n.nspname LIKE 'public%'
 UNION ALL
SELECT format('type %s owner %s', t.oid::regtype, t.typowner::regrole)
  FROM pg_type t WHERE t.typnamespace = 'public'::regnamespace
"""
SORTED = """
CREATE FUNCTION pg_temp.sorted(acl aclitem[]) RETURNS text[]
LANGUAGE sql RETURN (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(acl) AS a)
"""


def definitions(url: str) -> set[str]:
    """Every object, with its definition, owner and rights, by a query that shares nothing with that of the store."""
    with psycopg.connect(url) as connection:
        connection.execute(SORTED)
        return {text for (text,) in connection.execute(DEFINITIONS)}


def members(superuser: psycopg.Connection[tuple[object, ...]]) -> set[tuple[object, ...]]:
    return set(
        superuser.execute(
            "SELECT r.rolname, r.rolinherit, m.rolname, pg_has_role(m.oid, r.oid, 'USAGE') FROM pg_roles r"
            "  LEFT JOIN pg_auth_members a ON a.roleid = r.oid LEFT JOIN pg_roles m ON m.oid = a.member"
            " WHERE r.rolname LIKE 'eventstore\\_%'"
        ).fetchall()
    )


@pytest.mark.slow
async def test_a_database_migrated_without_roles_can_get_them_later(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    url = own_server.url()
    migrator = migrate(url)
    assert "row-level security is not in force" in migrator.findings()[0]
    with pytest.raises(PermissionDenied, match="CREATE ROLE eventstore_app NOLOGIN NOINHERIT"):
        migrator.make_roles()
    await use(url)
    superuser.execute("ALTER ROLE eventstore CREATEROLE")
    before = definitions(url)
    assert migrator.make_roles() != []
    assert (migrator.make_roles(), migrator.findings()) == ([], [])
    superuser.execute("CREATE DATABASE second OWNER eventstore TEMPLATE template0")
    later, memberships = definitions(url), members(superuser)
    migrate(own_server.url(database="second"))
    assert later == definitions(own_server.url(database="second")) != before
    assert members(superuser) == memberships
    async with EventStore(Settings(database_url=url)) as store:
        assert [event.content async for event in store.read_log()] == [1]
        assert [event async for event in store.read_log(tenant="other")] == []
    # the login itself, which saw everything before
    with psycopg.connect(url) as connection, pytest.raises(InsufficientPrivilege, match="has no tenant"):
        connection.execute("SELECT count(*) FROM events")


@pytest.mark.slow
async def test_running_programs_continue_while_the_roles_are_created(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    migrator = migrate(own_server.url())
    superuser.execute("ALTER ROLE eventstore CREATEROLE")
    done = asyncio.Event()
    conversations: list[UUID] = []

    async def append(store: EventStore) -> None:
        while not done.is_set() or len(conversations) < 50:
            conversation, event = uuid4(), MessageAdded(role="user", content="hello")
            is_stored = False
            while not is_stored:
                with suppress(ConnectionLost, ServerUnreachable):  # its connection was ended: the same again
                    await store.append(conversation, [event])
                    is_stored = True
            conversations.append(conversation)
            await asyncio.sleep(0.05)  # without a pause, the migrator rarely gets its locks in time

    async def has_written(count: int) -> bool:
        return len(conversations) > count

    async with EventStore(Settings(database_url=own_server.url())) as store:
        worker = asyncio.create_task(Worker(store).run())
        writers = [asyncio.create_task(append(store)) for _ in range(4)]
        await until_async(lambda: has_written(20), "appends are under way")
        await asyncio.to_thread(migrator.make_roles)
        more = len(conversations) + 20
        await until_async(lambda: has_written(more), "appends go on")
        done.set()
        await asyncio.gather(*writers)
        last = (await store.append(uuid4(), [note()])).position

        async def is_applied() -> bool:
            with suppress(ConnectionLost):
                [(lowest,)] = await store.connections.projector.fetch(
                    "SELECT min(position) FROM checkpoints WHERE position > 0"
                )
                return bool(lowest == last) or all(found.position == last for found in await verify(store))
            return False

        await until_async(is_applied, "the worker has caught up")
        assert {event.conversation_id async for event in store.read_log()} >= set(conversations)
        assert [found.differences for found in await verify(store)] == [[] for _ in PROJECTIONS]
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
    with psycopg.connect(own_server.superuser_url) as connection:
        counts = "SELECT (SELECT count(*) FROM conversations), (SELECT count(*) FROM parked)"
        assert connection.execute(counts).fetchone() == (len(conversations) + 1, 0)
    assert migrator.findings() == []


NOTED = Projection(
    "noted",
    ("noted",),
    "INSERT INTO noted SELECT tenant_id, conversation_id, version FROM batch",
    "CREATE TABLE noted (tenant_id text, conversation_id uuid, version int)",
)


@pytest.mark.slow
async def test_tables_of_other_projections_and_replaced_tables_get_roles_too(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    migrator, settings = migrate(own_server.url()), Settings(database_url=own_server.url())
    async with EventStore(settings) as store:
        async with InlineAppender(store, [NOTED], connections=1) as appender:
            await appender.append(uuid4(), [note()])
        await rebuild(store)
        await rebuild(store, [NOTED])
    superuser.execute("ALTER ROLE eventstore CREATEROLE")
    migrator.make_roles()
    assert (migrator.make_roles(), migrator.findings()) == ([], [])
    async with EventStore(settings) as store:
        async with InlineAppender(store, [NOTED], connections=1) as appender:
            await appender.append(uuid4(), [note()])
        await undo_rebuild(store, [*PROJECTIONS, NOTED])
        await rebuild(store, [*PROJECTIONS, NOTED], accept_differences=True)
    with psycopg.connect(own_server.superuser_url) as connection:
        owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname LIKE 'public%%' AND tablename <> %s"
        assert connection.execute(owners, (BOOKKEEPING,)).fetchall() == [("eventstore_owner",)]
        assert connection.execute("SELECT count(*) FROM noted").fetchone() == (2,)
    with psycopg.connect(own_server.url()) as connection, pytest.raises(InsufficientPrivilege, match="has no tenant"):
        connection.execute("SELECT count(*) FROM noted")


async def test_what_a_dba_has_granted_as_documented_is_enough_for_row_level_security(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("ALTER ROLE eventstore NOCREATEROLE")
    text = (TREE / "docs/concepts/roles.md").read_text()
    [statements] = re.findall(r"```sql\n(CREATE ROLE eventstore_owner.*?)```", text, re.DOTALL)
    superuser.execute(statements.replace("my_login", "eventstore").encode())
    migrator = migrate(own_server.url())
    assert migrator.findings() == []
    superuser.execute(
        "CREATE ROLE service LOGIN PASSWORD 'secret'; GRANT eventstore_app, eventstore_projector TO service"
    )
    url = with_password(own_server.url("service"))
    assert Migrator(url, Settings(database_url=url)).findings() == []
    with psycopg.connect(own_server.url()) as connection:
        append_raw(connection, 1)
        connection.commit()
        connection.execute("SELECT set_config('eventstore.tenant', '', false)")
        with pytest.raises(InsufficientPrivilege, match="has no tenant"):
            connection.execute("SELECT count(*) FROM events")


def test_a_login_that_may_not_create_in_the_schema_gets_an_error_that_names_the_missing_grant(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    superuser.execute("CREATE ROLE late LOGIN PASSWORD 'secret'")
    superuser.execute("CREATE DATABASE late")
    with pytest.raises(PermissionDenied, match="may not create objects in the schema public") as refused:
        migrate(with_password(own_server.url("late", "late")))
    with psycopg.connect(own_server.superuser_url, dbname="late", autocommit=True) as connection:
        connection.execute(str(refused.value).partition("as a superuser, ")[2].encode())
    migrate(with_password(own_server.url("late", "late")))


@pytest.mark.parametrize("login", ["LOGIN NOINHERIT CREATEROLE", "LOGIN NOINHERIT"])
def test_a_login_that_does_not_inherit_is_refused_before_anything_is_created(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]], login: str
) -> None:
    superuser.execute(f"CREATE ROLE late {login} PASSWORD 'secret'".encode())
    superuser.execute("CREATE DATABASE late OWNER late")
    granted = "eventstore_migrator, eventstore_search, eventstore_app, eventstore_projector, eventstore_eraser"
    if "CREATEROLE" not in login:
        migrate(own_server.url())
        superuser.execute(f"GRANT {granted} TO late".encode())
    with pytest.raises(PermissionDenied, match='ALTER ROLE "late" INHERIT'):
        migrate(with_password(own_server.url("late", "late")))
    superuser.execute("ALTER ROLE late INHERIT")
    if "CREATEROLE" not in login:
        how = " WITH INHERIT TRUE" if superuser.info.server_version >= 160000 else ""
        superuser.execute(f"GRANT {granted} TO late{how}".encode())
    assert migrate(with_password(own_server.url("late", "late"))).findings() == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("GRANT eventstore_owner TO eventstore_app", "unexpected membership: eventstore_app in eventstore_owner"),
        (
            "ALTER ROLE eventstore_app INHERIT; GRANT eventstore_reader TO eventstore_app",
            "altered role: eventstore_app",
        ),
        ("ALTER ROLE eventstore_auditor BYPASSRLS", "does not hold for the role eventstore_auditor"),
        ("CREATE POLICY open ON events USING (true)", "unexpected policy: open on events: DROP POLICY open on events"),
        ("ALTER TABLE messages OWNER TO eventstore", "altered owner of: table messages"),
        (
            "GRANT EXECUTE ON FUNCTION bind_login(name, text) TO PUBLIC",
            "altered rights on: function bind_login(name,text)",
        ),
    ],
)
@pytest.mark.slow
def test_wider_rights_than_the_migrations_grant_are_named(
    own_server: EmbeddedServer, superuser: psycopg.Connection[tuple[object, ...]], change: str, named: str
) -> None:
    migrator = migrate(own_server.url())
    assert migrator.findings() == []
    superuser.execute(change.encode())
    assert any(named in finding for finding in migrator.findings())
    migrate(own_server.superuser_url).make_roles()
    if change.startswith("CREATE POLICY"):  # an operator may need it
        superuser.execute("DROP POLICY open ON events")
    assert migrator.findings() == []
