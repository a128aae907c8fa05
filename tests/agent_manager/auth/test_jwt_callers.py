"""JWT are accepted as long as their tenant and user are."""

from __future__ import annotations

import time

import pytest
from support.authentication import OpenAuthenticator, is_rejected
from support.tokens import SECRET, signed
from support.waiting import seconds_of_delay

from agent_manager.auth import Directory, Identity, TokenScope
from agent_manager.auth.jwt import LEEWAY_SECONDS
from eventstore.scope import Caller

pytestmark = pytest.mark.shared_database


async def test_a_token_identifies_its_bearer(open_authenticator: OpenAuthenticator) -> None:
    identity = await (await open_authenticator(jwt_key=SECRET)).identify(signed())
    assert identity == Identity("acme", "ana", "ana", frozenset({TokenScope.READ, TokenScope.WRITE}), None)
    assert identity.caller == Caller("acme", "ana")


@pytest.mark.slow
async def test_an_expired_token_is_rejected(open_authenticator: OpenAuthenticator) -> None:
    authenticator = await open_authenticator(jwt_key=SECRET)
    expires = int(time.time()) + 3 - LEEWAY_SECONDS
    token = signed(exp=expires)
    assert not await is_rejected(authenticator, token)
    left = expires + LEEWAY_SECONDS - time.time()
    assert await seconds_of_delay(lambda: is_rejected(authenticator, token), "expired") < left + 1
    assert time.time() >= expires + LEEWAY_SECONDS


@pytest.mark.slow
async def test_disabled_users_and_suspended_tenants_are_rejected_within_a_second(
    directory: Directory, open_authenticator: OpenAuthenticator
) -> None:
    authenticator = await open_authenticator(jwt_key=SECRET)
    ana, unknown = signed(), signed(sub="somebody of the issuer's")
    assert not await is_rejected(authenticator, ana)
    assert not await is_rejected(authenticator, unknown)
    await directory.disable_user("acme", "ana")
    assert await seconds_of_delay(lambda: is_rejected(authenticator, ana), "ana is refused") < 1
    assert not await is_rejected(authenticator, unknown)
    await directory.suspend_tenant("acme")
    assert await seconds_of_delay(lambda: is_rejected(authenticator, unknown), "all users are refused") < 1


async def test_without_a_key_no_jwt_is_accepted(open_authenticator: OpenAuthenticator) -> None:
    authenticator = await open_authenticator()
    assert await is_rejected(authenticator, signed())
    assert await is_rejected(authenticator, signed("x" * 32))


async def test_the_log_says_why_a_token_was_rejected_and_quotes_nothing_of_it(
    open_authenticator: OpenAuthenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    authenticator = await open_authenticator(jwt_key=SECRET)
    token = signed(exp=1)
    assert await is_rejected(authenticator, token)
    assert "a JWT was rejected: ExpiredSignatureError" in caplog.text
    assert not any(part in caplog.text for part in token.split("."))


@pytest.mark.parametrize("tenant", ["nowhere", "acme ", "ACME", "a%", "'"])
async def test_a_token_of_an_unknown_tenant_is_rejected(open_authenticator: OpenAuthenticator, tenant: str) -> None:
    assert await is_rejected(await open_authenticator(jwt_key=SECRET), signed(tenant=tenant))


async def test_an_administrator_by_jwt_sees_the_whole_tenant(open_authenticator: OpenAuthenticator) -> None:
    identity = await (await open_authenticator(jwt_key=SECRET)).identify(signed(scope="admin"))
    assert (identity.actor, identity.caller) == ("ana", Caller("acme"))
