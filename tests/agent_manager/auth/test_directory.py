"""The directory of tenants and users, and the rights of the service on its tables."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from agent_manager.auth import BoundLogin, Directory
from eventstore.errors import ConflictError, InvalidEvent, NotFound

pytestmark = pytest.mark.shared_database


@pytest.fixture
def login(superuser_url: str) -> Iterator[str]:
    """A login of the server without any rights."""
    name = f"login_{uuid4().hex[:12]}"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'test'".encode())
        yield name
        connection.execute(f"DROP ROLE {name}".encode())


TABLES = ("identity_tenants", "identity_users", "identity_keys")


async def test_tenants_are_listed_by_id(directory: Directory) -> None:
    added = await directory.add_tenant("Ω & co", "Omega")
    assert [tenant.id for tenant in await directory.tenants()] == ["acme", "Ω & co"]
    assert (added.name, added.suspended_at) == ("Omega", None)


async def test_users_and_agents_are_listed_by_id_within_their_tenant(directory: Directory) -> None:
    await directory.add_tenant("globex")
    assert await directory.users("globex") == []
    await directory.add_user("globex", "ana", "Another Ana")
    await directory.add_user("acme", "Bot", agent=True)
    assert [(user.id, user.kind) for user in await directory.users("acme")] == [("Bot", "agent"), ("ana", "user")]
    assert [user.name for user in await directory.users("globex")] == ["Another Ana"]


async def test_adding_an_existing_name_is_a_conflict(directory: Directory) -> None:
    with pytest.raises(ConflictError, match="tenant acme exists already"):
        await directory.add_tenant("acme", "Other")
    with pytest.raises(ConflictError, match="a user ana already"):
        await directory.add_user("acme", "ana", "Other", agent=True)
    assert [(user.kind, user.name) for user in await directory.users("acme")] == [("user", "")]
    assert [tenant.name for tenant in await directory.tenants()] == [""]


async def test_an_unknown_name_is_not_found(directory: Directory) -> None:
    for asked in (
        directory.suspend_tenant("globex"),
        directory.add_user("globex", "ana"),
        directory.users("globex"),
        directory.keys("globex"),
        directory.disable_user("globex", "ana"),
        directory.disable_user("acme", "bob"),
        directory.revoke_key("acme", "nothing"),
    ):
        with pytest.raises(NotFound, match="eventstore "):
            await asked


async def test_suspending_twice_keeps_the_first_time_and_resuming_clears_it(directory: Directory) -> None:
    first = await directory.suspend_tenant("acme")
    assert first.suspended_at is not None
    assert await directory.suspend_tenant("acme") == first
    assert (await directory.suspend_tenant("acme", suspended=False)).suspended_at is None
    disabled = await directory.disable_user("acme", "ana")
    assert await directory.disable_user("acme", "ana") == disabled
    assert (await directory.disable_user("acme", "ana", disabled=False)).disabled_at is None


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "\ud800"])
async def test_names_that_cannot_be_stored_are_rejected(directory: Directory, name: str) -> None:
    with pytest.raises(InvalidEvent):
        await directory.add_tenant(name)
    with pytest.raises(InvalidEvent):
        await directory.add_user("acme", name)
    with pytest.raises(InvalidEvent):
        await directory.add_key("acme", name)


async def test_a_user_cannot_have_a_name_like_the_actor_of_a_key(directory: Directory) -> None:
    with pytest.raises(InvalidEvent, match="begins like the actor of a key"):
        await directory.add_user("acme", "key:billing")


async def test_a_login_is_bound_to_a_tenant_until_it_is_unbound(
    directory: Directory, superuser_url: str, login: str
) -> None:
    url = make_conninfo(superuser_url, user=login, password="test")
    await directory.bind_login("acme", login)
    assert BoundLogin(login, "acme") in await directory.logins()
    with psycopg.connect(url) as connection:
        connection.execute("SET eventstore.tenant = 'globex'")
        assert connection.execute("SELECT current_tenant()").fetchone() == ("acme",)
    await directory.unbind_login(login)
    assert await directory.logins() == []
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_tenant()").fetchone() == (None,)
    with pytest.raises(NotFound, match="is bound to no tenant"):
        await directory.unbind_login(login)


async def test_a_bound_login_with_the_role_of_the_service_still_sees_only_its_tenant(
    directory: Directory, superuser_url: str, login: str
) -> None:
    await directory.add_key("acme", "laptop")
    url = make_conninfo(superuser_url, user=login, password="test")
    with psycopg.connect(superuser_url, autocommit=True) as superuser:
        superuser.execute(f"GRANT eventstore_app TO {login}".encode())
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET ROLE eventstore_app")
        assert all(connection.execute(f"SELECT FROM {table}".encode()).fetchall() for table in TABLES)
        await directory.bind_login("acme", login)
        assert not any(connection.execute(f"SELECT FROM {table}".encode()).fetchall() for table in TABLES)
        assert connection.execute("UPDATE identity_keys SET revoked_at = now()").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("INSERT INTO identity_tenants (id) VALUES ('globex')")
    await directory.unbind_login(login)


async def test_a_login_that_cannot_be_bound_is_rejected(directory: Directory, login: str) -> None:
    with pytest.raises(NotFound, match="tenant globex does not exist"):
        await directory.bind_login("globex", login)
    with pytest.raises(NotFound, match="login 'nobody' does not exist"):
        await directory.bind_login("acme", "nobody")
    with pytest.raises(ConflictError, match="sees every tenant"):
        await directory.bind_login("acme", "eventstore_projector")


async def test_users_keys_and_tenants_are_found_by_a_part_of_their_names_at_most_so_many(directory: Directory) -> None:
    for number in range(4):
        await directory.add_user("acme", f"u{number}", f"Ana {number}%_")
    keys = [(await directory.add_key("acme", f"key {number}", user=f"u{number % 2}")).key.id for number in range(4)]
    await directory.revoke_key("acme", keys[3])
    assert [each.id for each in await directory.users("acme", text="aNa 1%")] == ["u1"]
    assert [each.id for each in await directory.users("acme", user="u2")] == ["u2"]
    assert [each.id for each in await directory.users("acme", text="u", limit=2)] == ["u0", "u1"]
    assert await directory.users("acme", text="_%") == []
    assert [each.id for each in await directory.keys("acme")] == keys
    assert [each.id for each in await directory.keys("acme", limit=3)] == keys[2::-1], "in use, the latest first"
    assert [each.id for each in await directory.keys("acme", limit=9)] == [*keys[2::-1], keys[3]]
    assert [each.id for each in await directory.keys("acme", user="u1", text="KEY")] == [keys[1], keys[3]]
    assert [each.id for each in await directory.tenants(text="CM", limit=1)] == ["acme"]
