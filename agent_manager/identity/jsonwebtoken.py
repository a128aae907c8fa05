"""JWT: whether one was signed by the configured issuer for us, and whom it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import jwt
from pydantic import SecretStr

from agent_manager.identity.identity import Scope
from agent_manager.identity.keyset import key_set
from agent_manager.identity.names import checked_user
from agent_manager.identity.verifying import VerifyingKey, configured_key
from eventstore import Settings
from eventstore.caller import checked_tenant
from eventstore.errors import InputError, SettingsError

LEEWAY_SECONDS = 10.0
"""By how much the issuer's clock and ours may differ."""
# Whoever has a valid signature may still send values that int() or json refuse in ways of their own.
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class Keys(Protocol):
    """Where the keys are found that check signatures."""

    async def find(self, key_id: str | None) -> VerifyingKey | None:
        """The key that a token says it was signed with; None where there is none."""


@dataclass(frozen=True, slots=True)
class FixedKey:
    """One key, whatever tokens say."""

    key: VerifyingKey

    async def find(self, key_id: str | None) -> VerifyingKey | None:
        """The key."""
        return self.key


@dataclass(frozen=True, slots=True)
class Named:
    """Whom a token names.

    Attributes:
        until: when it expires, in seconds since 1970.
    """

    tenant: str
    user: str
    scopes: frozenset[Scope]
    until: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that names nobody.

    Attributes:
        why: for the log; no word of the token.
    """

    why: str


class JwtReader:
    """Checks JWT.

    Args:
        keys: for the signatures.
        settings: ``EVENTSTORE_JWT_ISSUER``, ``…_AUDIENCE``, ``…_TENANT_CLAIM`` and ``…_USER_CLAIM``.
    """

    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._keys = keys
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None
        self._tenant_claim = settings.jwt_tenant_claim
        self._user_claim = settings.jwt_user_claim
        self._required = ["exp"] + ["iss"] * bool(self._issuer) + ["aud"] * bool(self._audience)

    async def read(self, token: SecretStr) -> Named | Refused:
        """Whom the token names.

        It returns refusals instead of raising them, so that no error has a frame in which a token stands.

        Raises:
            KeysUnavailable: the keys cannot be read now.
        """
        try:
            key_id = jwt.get_unverified_header(token.get_secret_value()).get("kid")
        except _MALFORMED:
            return Refused("it is no JWT")
        key = await self._keys.find(key_id)
        if key is None:
            return Refused("it is signed with a key that is unknown")
        try:
            payload = jwt.decode(
                token.get_secret_value(),
                key.key,
                algorithms=list(key.algorithms),
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": self._required},
            )
            return self._named(payload)
        except _MALFORMED as error:
            return Refused(type(error).__name__)

    def _named(self, payload: dict[str, Any]) -> Named | Refused:
        try:
            tenant = checked_tenant(payload.get(self._tenant_claim, ""))
            user = checked_user(payload.get(self._user_claim, ""))
        except InputError:
            return Refused("a claim that names tenant or user is missing or is no name")
        if (scopes := _scopes(payload)) is None:
            return Refused("its scopes are no text and no list of texts")
        return Named(tenant, user, scopes, float(payload["exp"]))


def jwt_reader(settings: Settings) -> JwtReader | None:
    """What checks JWT; None where none are accepted.

    Raises:
        SettingsError: the settings contradict each other, or a key cannot be used.
    """
    key = settings.jwt_key if settings.jwt_key and settings.jwt_key.get_secret_value() else None
    if key is not None and settings.jwt_jwks:
        raise SettingsError("EVENTSTORE_JWT_KEY, EVENTSTORE_JWT_JWKS: give one of them: a token has one issuer")
    if key is not None:
        return JwtReader(FixedKey(configured_key(key)), settings)
    if settings.jwt_jwks:
        return JwtReader(key_set(settings.jwt_jwks), settings)
    if settings.jwt_issuer or settings.jwt_audience:
        raise SettingsError(
            "EVENTSTORE_JWT_ISSUER, EVENTSTORE_JWT_AUDIENCE: no JWT is accepted without a key: "
            "give EVENTSTORE_JWT_KEY or EVENTSTORE_JWT_JWKS too"
        )
    return None


def _scopes(payload: dict[str, Any]) -> frozenset[Scope] | None:
    """Those of the token that mean something here; a token that says nothing about scopes may read and write."""
    if "scope" in payload:
        said = payload["scope"].split() if isinstance(payload["scope"], str) else None
    else:
        said = payload.get("scopes", [Scope.READ, Scope.WRITE])
    if not isinstance(said, list):
        return None
    return frozenset(scope for scope in Scope if scope in said)
