"""JWT are accepted as long as their tenant and user are."""

from __future__ import annotations

import time

import pytest
from support.gate import Gate, is_refused
from support.tokens import SECRET, signed
from support.waiting import seconds_of_delay

from agent_manager.auth import Directory, Identity, Scope
from agent_manager.auth.jwt import LEEWAY_SECONDS
from eventstore.scope import Caller

pytestmark = pytest.mark.shared_database


async def test_a_token_says_who_bears_it(gate: Gate) -> None:
    identity = await (await gate(jwt_key=SECRET)).identify(signed())
    assert identity == Identity("acme", "ana", "ana", frozenset({Scope.READ, Scope.WRITE}), None)
    assert identity.caller == Caller("acme", "ana")


async def test_a_token_is_refused_once_it_has_expired(gate: Gate) -> None:
    authenticator = await gate(jwt_key=SECRET)
    expires = int(time.time()) + 3 - LEEWAY_SECONDS
    token = signed(exp=expires)
    assert not await is_refused(authenticator, token)
    left = expires + LEEWAY_SECONDS - time.time()
    assert await seconds_of_delay(lambda: is_refused(authenticator, token), "expired") < left + 1
    assert time.time() >= expires + LEEWAY_SECONDS


async def test_disabled_users_and_suspended_tenants_are_refused_within_a_second(
    directory: Directory, gate: Gate
) -> None:
    authenticator = await gate(jwt_key=SECRET)
    ana, unknown = signed(), signed(sub="somebody of the issuer's")
    assert not await is_refused(authenticator, ana)
    assert not await is_refused(authenticator, unknown)
    await directory.disable_user("acme", "ana")
    assert await seconds_of_delay(lambda: is_refused(authenticator, ana), "ana is refused") < 1
    assert not await is_refused(authenticator, unknown)
    await directory.suspend_tenant("acme")
    assert await seconds_of_delay(lambda: is_refused(authenticator, unknown), "all users are refused") < 1


async def test_without_a_key_no_jwt_is_accepted(gate: Gate) -> None:
    authenticator = await gate()
    assert await is_refused(authenticator, signed())
    assert await is_refused(authenticator, signed("x" * 32))


async def test_why_a_token_was_refused_stands_in_the_log_and_nothing_of_it(
    gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authenticator = await gate(jwt_key=SECRET)
    token = signed(exp=1)
    assert await is_refused(authenticator, token)
    assert "a JWT was rejected: ExpiredSignatureError" in caplog.text
    assert not any(part in caplog.text for part in token.split("."))


@pytest.mark.parametrize("tenant", ["nowhere", "acme ", "ACME", "a%", "'"])
async def test_a_tenant_that_nobody_added_is_not_let_in(gate: Gate, tenant: str) -> None:
    assert await is_refused(await gate(jwt_key=SECRET), signed(tenant=tenant))


async def test_an_administrator_by_jwt_sees_the_whole_tenant(gate: Gate) -> None:
    identity = await (await gate(jwt_key=SECRET)).identify(signed(scope="admin"))
    assert (identity.actor, identity.caller) == ("ana", Caller("acme"))
