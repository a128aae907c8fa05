"""Whatever is done to tenants, users and keys, exactly those tokens are accepted that a simple model accepts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from support.authentication import is_rejected
from support.examples import examples
from support.tokens import SECRET, signed

from agent_manager.auth import Authenticator, Directory, TokenScope
from agent_manager.settings import ServerSettings
from eventstore import EventStore

TENANTS, USERS = ("one", "two"), ("ana", "bob")


@dataclass
class Model:
    """The tenants, users and keys that are blocked.

    Attributes:
        keys: the tokens made so far: of which tenant and user, and whether they were revoked.
    """

    suspended: set[str] = field(default_factory=set)
    disabled: set[tuple[str, str]] = field(default_factory=set)
    keys: dict[str, tuple[str, str | None, str]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def lets_in(self, tenant: str, user: str | None) -> bool:
        return tenant not in self.suspended and (tenant, user) not in self.disabled


steps = st.lists(
    st.tuples(
        st.sampled_from(["key", "key", "revoke", "suspend", "resume", "disable", "enable"]),
        st.sampled_from(TENANTS),
        st.sampled_from((*USERS, None)),
        st.integers(0, 5),
    ),
    max_size=12,
)


@examples(25)
@given(steps)
async def test_the_authenticator_accepts_exactly_the_tokens_that_the_model_accepts(
    store: EventStore, steps: list[tuple[str, str, str | None, int]]
) -> None:
    directory, model, run = Directory(store), Model(), uuid4().hex
    named: Callable[[str], str] = lambda tenant: f"{tenant} {run}"  # noqa: E731 - each example has tenants of its own
    for tenant in TENANTS:
        await directory.add_tenant(named(tenant))
        for user in USERS:
            await directory.add_user(named(tenant), user)
    for what, tenant, user, number in steps:
        match what:
            case "key":
                lifetime = timedelta(hours=1) if number else None
                new = await directory.add_key(
                    named(tenant), "k", user=user, scopes=[list(TokenScope)[number % 5]], lifetime=lifetime
                )
                model.keys[new.token.get_secret_value()] = (tenant, user, new.key.id)
            case "revoke" if model.keys:
                tenant, _, key = list(model.keys.values())[number % len(model.keys)]
                await directory.revoke_key(named(tenant), key)
                model.revoked.add(key)
            case "suspend" | "resume":
                await directory.suspend_tenant(named(tenant), suspended=what == "suspend")
                (model.suspended.add if what == "suspend" else model.suspended.discard)(tenant)
            case "disable" | "enable" if user is not None:
                await directory.disable_user(named(tenant), user, disabled=what == "disable")
                (model.disabled.add if what == "disable" else model.disabled.discard)((tenant, user))
    jwt_settings = ServerSettings(_env_file=None, jwt_key=SECRET)
    async with Authenticator(store, jwt_settings) as authenticator:
        for token, (tenant, user, key) in model.keys.items():
            expected = key not in model.revoked and model.lets_in(tenant, user)
            assert await is_rejected(authenticator, token) is not expected
            if expected:
                identity = await authenticator.identify(token)
                assert (identity.tenant, identity.user, identity.key) == (named(tenant), user, key)
        for tenant in TENANTS:
            for user in USERS:
                refused = await is_rejected(authenticator, signed(tenant=named(tenant), sub=user))
                assert refused is not model.lets_in(tenant, user)
