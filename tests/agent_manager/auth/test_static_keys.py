"""Static keys are shown once, stored as a hash, expire, and are revoked within a second."""

from __future__ import annotations

import asyncio
import hashlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from support.authentication import OpenAuthenticator, is_rejected
from support.waiting import seconds_of_delay

from agent_manager.auth import Directory, Identity, NewKey, TokenScope, Unauthorized
from eventstore.errors import InputError, NotFound
from eventstore.scope import Caller

pytestmark = pytest.mark.shared_database

EFFECTIVE_SECONDS = 1.0
"""The longest time for which a change of keys, users or tenants is not effective yet."""


def text(new: NewKey) -> str:
    return new.token.get_secret_value()


async def test_a_key_says_who_bears_it(directory: Directory, open_authenticator: OpenAuthenticator) -> None:
    new = await directory.add_key("acme", "laptop", user="ana", scopes=[TokenScope.READ, TokenScope.AUDIT])
    identity = await (await open_authenticator()).identify(text(new))
    assert identity == Identity("acme", "ana", "ana", frozenset({TokenScope.READ, TokenScope.AUDIT}), new.key.id)
    assert identity.caller == Caller("acme", "ana")
    assert identity.may(TokenScope.AUDIT)
    assert not identity.may(TokenScope.WRITE)


async def test_a_key_without_a_user_acts_for_the_tenant_under_its_own_name(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    identity = await (await open_authenticator()).identify(text(await directory.add_key("acme", "billing")))
    assert (identity.user, identity.actor, identity.caller) == (None, "key:billing", Caller("acme"))


async def test_an_administrator_sees_the_whole_tenant_and_acts_under_their_own_name(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    new = await directory.add_key("acme", "desk", user="ana", scopes=[TokenScope.ADMIN])
    identity = await (await open_authenticator()).identify(text(new))
    assert (identity.actor, identity.caller) == ("ana", Caller("acme"))


async def test_the_secret_is_stored_nowhere(directory: Directory, database_url: str) -> None:
    new = await directory.add_key("acme", "laptop", user="ana")
    prefix, key, secret = text(new).split("_", 2)
    assert (prefix, key) == ("es", new.key.id)
    assert len(secret) == 43
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT k::text, hash FROM identity_keys AS k").fetchall()
    [(row, stored)] = rows
    assert secret not in row
    assert stored == hashlib.sha256(secret.encode()).digest()
    assert secret not in repr(await directory.keys("acme"))


async def test_every_key_is_different(directory: Directory) -> None:
    made = [await directory.add_key("acme", "same") for _ in range(5)]
    assert len({new.key.id for new in made}) == len({text(new) for new in made}) == 5


async def test_a_revoked_key_is_rejected_within_a_second(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    new = await directory.add_key("acme", "laptop", user="ana")
    authenticators = [await open_authenticator(), await open_authenticator()]  # as in two processes
    for authenticator in authenticators:
        assert not await is_rejected(authenticator, text(new))
    assert (await directory.revoke_key("acme", new.key.id)).state == "revoked"

    async def everywhere() -> bool:
        return all([await is_rejected(authenticator, text(new)) for authenticator in authenticators])

    assert await seconds_of_delay(everywhere, "refused") < EFFECTIVE_SECONDS
    first = (await directory.keys("acme"))[0].revoked_at
    assert (await directory.revoke_key("acme", new.key.id)).revoked_at == first


@pytest.mark.slow
async def test_an_expired_key_is_rejected(directory: Directory, open_authenticator: OpenAuthenticator) -> None:
    new = await directory.add_key("acme", "short", lifetime=timedelta(seconds=1.5))
    authenticator = await open_authenticator()
    assert not await is_rejected(authenticator, text(new))
    assert new.key.expires_at is not None
    left = (new.key.expires_at - datetime.now(UTC)).total_seconds()
    delay = await seconds_of_delay(lambda: is_rejected(authenticator, text(new)), "expired")
    assert delay < left + EFFECTIVE_SECONDS
    assert datetime.now(UTC) >= new.key.expires_at
    assert [key.state for key in await directory.keys("acme")] == ["expired"]


@pytest.mark.slow
async def test_keys_of_a_suspended_tenant_are_rejected_until_it_is_resumed(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    token = text(await directory.add_key("acme", "laptop", user="ana"))
    await directory.add_tenant("globex")
    other = text(await directory.add_key("globex", "laptop"))
    authenticator = await open_authenticator()
    assert not await is_rejected(authenticator, token)
    await directory.suspend_tenant("acme")
    assert await seconds_of_delay(lambda: is_rejected(authenticator, token), "refused") < EFFECTIVE_SECONDS
    assert not await is_rejected(authenticator, other)
    assert [key.state for key in await directory.keys("acme")] == ["suspended"]
    await directory.suspend_tenant("acme", suspended=False)

    async def let_in() -> bool:
        return not await is_rejected(authenticator, token)

    assert await seconds_of_delay(let_in, "let in") < EFFECTIVE_SECONDS


async def test_keys_of_a_disabled_user_are_rejected_until_they_are_enabled(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    token = text(await directory.add_key("acme", "laptop", user="ana"))
    other = text(await directory.add_key("acme", "billing"))
    authenticator = await open_authenticator()
    assert not await is_rejected(authenticator, token)
    await directory.disable_user("acme", "ana")
    assert await seconds_of_delay(lambda: is_rejected(authenticator, token), "refused") < EFFECTIVE_SECONDS
    assert not await is_rejected(authenticator, other)
    assert [key.state for key in await directory.keys("acme")] == ["disabled", "active"]
    await directory.disable_user("acme", "ana", disabled=False)
    assert not await is_rejected(await open_authenticator(), token)


@pytest.mark.slow
async def test_a_key_is_looked_up_no_more_than_twice_a_second(
    directory: Directory, open_authenticator: OpenAuthenticator, queries: list[Any]
) -> None:
    token = text(await directory.add_key("acme", "laptop", user="ana"))
    authenticator = await open_authenticator()
    calls, began = 0, time.monotonic()
    while time.monotonic() - began < 1.2:
        await authenticator.identify(token)
        calls += 1
        await asyncio.sleep(0)
    looked = [parameters for parameters in queries if "hashes" in parameters]
    assert calls > 20
    assert len(looked) <= 3


@pytest.mark.parametrize(
    "broken",
    [
        "", " ", "es_", "es__", "a.b.c", "é", "\udcff", "es_\x00", "Bearer x", "x" * 100_000,
        f"es_{'a' * 12}_{'A' * 43}", f"es_{'a' * 12}_{'A' * 42}", f"es_{'A' * 12}_{'A' * 43}",
    ],
)  # fmt: skip
async def test_a_malformed_key_is_rejected(open_authenticator: OpenAuthenticator, broken: str) -> None:
    with pytest.raises(Unauthorized):
        await (await open_authenticator()).identify(broken)


async def test_a_wrong_secret_is_rejected_like_an_unknown_id(
    directory: Directory, open_authenticator: OpenAuthenticator, queries: list[Any]
) -> None:
    """Keys are looked up by the hash of the secret: a known id is not even looked at."""
    new = await directory.add_key("acme", "laptop", user="ana")
    authenticator = await open_authenticator()
    secret = text(new).split("_", 2)[2]
    errors = []
    for token in (f"es_{new.key.id}_{'A' * 43}", f"es_{'a' * 12}_{'B' * 43}", f"es_{'a' * 12}_{secret}"):
        queries.clear()
        with pytest.raises(Unauthorized) as refusal:
            await authenticator.identify(token)
        errors.append(str(refusal.value))
        assert [list(parameters) for parameters in queries] == [["hashes"]]
    assert len(set(errors)) == 1


async def test_all_rejections_have_the_same_text(directory: Directory, open_authenticator: OpenAuthenticator) -> None:
    revoked = await directory.add_key("acme", "revoked")
    await directory.revoke_key("acme", revoked.key.id)
    disabled = await directory.add_key("acme", "disabled", user="ana")
    await directory.disable_user("acme", "ana")
    await directory.add_tenant("globex")
    suspended = await directory.add_key("globex", "suspended")
    await directory.suspend_tenant("globex")
    authenticator = await open_authenticator()
    errors = set()
    for token in (text(revoked), text(disabled), text(suspended), f"es_{'a' * 12}_{'A' * 43}", "nonsense"):
        with pytest.raises(Unauthorized) as refusal:
            await authenticator.identify(token)
        errors.add(str(refusal.value))
    assert len(errors) == 1


@pytest.mark.slow
async def test_the_same_wrong_key_costs_few_queries(open_authenticator: OpenAuthenticator, queries: list[Any]) -> None:
    authenticator = await open_authenticator()
    calls, began = 0, time.monotonic()
    while time.monotonic() - began < 1.2:
        assert await is_rejected(authenticator, f"es_{'a' * 12}_{'A' * 43}")
        calls += 1
    assert calls > 20
    assert len(queries) <= 3


async def test_a_flood_of_wrong_keys_costs_few_queries_and_blocks_nobody(
    directory: Directory, open_authenticator: OpenAuthenticator, queries: list[Any]
) -> None:
    token = text(await directory.add_key("acme", "laptop", user="ana"))
    authenticator = await open_authenticator()
    flood = [f"es_{number:012}_{'A' * 43}" for number in range(5000)]
    tasks = [asyncio.create_task(is_rejected(authenticator, wrong)) for wrong in flood]
    await asyncio.sleep(0)  # they ask first
    assert (await authenticator.identify(token)).user == "ana"
    assert all(await asyncio.gather(*tasks))
    assert len(queries) < 20


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=40_000)])
async def test_an_invalid_lifetime_is_rejected(directory: Directory, lifetime: timedelta) -> None:
    with pytest.raises(InputError, match="lifetime"):
        await directory.add_key("acme", "laptop", lifetime=lifetime)


async def test_a_key_needs_a_name_a_scope_and_a_known_user(directory: Directory) -> None:
    with pytest.raises(InputError, match="name: is empty"):
        await directory.add_key("acme", "")
    with pytest.raises(InputError, match="at least one"):
        await directory.add_key("acme", "laptop", scopes=[])
    with pytest.raises(NotFound, match="tenant acme has no user bob"):
        await directory.add_key("acme", "laptop", user="bob")
    with pytest.raises(NotFound, match="tenant globex does not exist"):
        await directory.add_key("globex", "laptop", user="ana")
    with pytest.raises(NotFound, match="tenant globex does not exist"):
        await directory.add_key("globex", "laptop")
    assert await directory.keys("acme") == []


async def test_a_key_of_another_tenant_cannot_be_revoked(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    await directory.add_tenant("globex")
    new = await directory.add_key("acme", "laptop")
    with pytest.raises(NotFound):
        await directory.revoke_key("globex", new.key.id)
    assert not await is_rejected(await open_authenticator(), text(new))
