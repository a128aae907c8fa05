"""JSON Web Tokens: the claims of a token, the keys that verify its signature, and the JWKS of an issuer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

from agent_manager.auth.directory import checked_user
from agent_manager.auth.identity import Identity, KeysUnavailable, TokenScope
from agent_manager.http_client import ResponseTooLarge, load_json, open_client
from agent_manager.settings import ServerSettings
from eventstore.errors import InputError, SettingsError, printable
from eventstore.scope import checked_tenant
from eventstore.urls import check_url, show_name, show_url

LEEWAY_SECONDS = 10.0
"""Seconds by which the clocks of the issuer and of this machine may differ."""
# A token with a valid signature may hold values that int() or json reject with other exceptions.
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)

_log = logging.getLogger(__name__)


class ValidToken(NamedTuple):
    """The identity of the bearer of a valid token, and when that expires, in seconds since 1970."""

    identity: Identity
    expires_at: float


@dataclass(frozen=True, slots=True)
class InvalidToken:
    """The reason for which a token is not valid, for the log; it quotes nothing of the token."""

    reason: str


class JwtReader:
    """Verifies JWT.

    Args:
        find_key: returns the key that a token names, None if there is none.
        settings: ``EVENTSTORE_JWT_ISSUER``, ``…_AUDIENCE``, ``…_TENANT_CLAIM`` and ``…_USER_CLAIM``.
    """

    def __init__(
        self, find_key: Callable[[str | None], Awaitable[VerifyingKey | None]], settings: ServerSettings
    ) -> None:
        self._find_key = find_key
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None
        self._tenant_claim = settings.jwt_tenant_claim
        self._user_claim = settings.jwt_user_claim
        self._required = ["exp"] + ["iss"] * bool(self._issuer) + ["aud"] * bool(self._audience)

    async def read(self, token: SecretStr) -> ValidToken | InvalidToken:
        """Return the identity of the bearer of a token.

        An invalid token is returned, not raised, so that no traceback has a frame that holds it.

        Raises:
            KeysUnavailable: the keys cannot be read now.
        """
        try:
            key_id = jwt.get_unverified_header(token.get_secret_value()).get("kid")
        except _MALFORMED:
            return InvalidToken("it is not a JWT")
        key = await self._find_key(key_id)
        if key is None:
            return InvalidToken("it is signed with an unknown key")
        try:
            claims = jwt.decode(
                token.get_secret_value(),
                key.key,
                algorithms=list(key.algorithms),
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options={"require": self._required},
            )
            return self._valid(claims)
        except _MALFORMED as error:
            return InvalidToken(type(error).__name__)

    def _valid(self, claims: dict[str, Any]) -> ValidToken | InvalidToken:
        try:
            tenant = checked_tenant(claims.get(self._tenant_claim, ""))
            user = checked_user(claims.get(self._user_claim, ""))
        except InputError:
            return InvalidToken("the claim of its tenant or user is missing or not valid")
        if (scopes := _scopes(claims)) is None:
            return InvalidToken("its scopes are neither a text nor a list of texts")
        return ValidToken(Identity(tenant, user, user, scopes), float(claims["exp"]))


def _scopes(claims: dict[str, Any]) -> frozenset[TokenScope] | None:
    """Return the known scopes of a token, which may read and write if it names none; None if they are malformed."""
    if "scope" in claims:
        names = claims["scope"].split() if isinstance(claims["scope"], str) else None
    else:
        names = claims.get("scopes", [TokenScope.READ, TokenScope.WRITE])
    return frozenset(scope for scope in TokenScope if scope in names) if isinstance(names, list) else None


def jwt_reader(settings: ServerSettings) -> JwtReader | None:
    """Return a reader of JWT; None if none are accepted.

    Raises:
        SettingsError: the settings contradict each other, or a key cannot be used.
    """
    key = settings.jwt_key if settings.jwt_key and settings.jwt_key.get_secret_value() else None
    if key is not None and settings.jwt_jwks:
        raise SettingsError("EVENTSTORE_JWT_KEY, EVENTSTORE_JWT_JWKS: give one of them: a token has one issuer")
    if key is not None:
        only_key = configured_key(key)

        async def find_key(key_id: str | None) -> VerifyingKey:
            return only_key

        return JwtReader(find_key, settings)
    if settings.jwt_jwks:
        return JwtReader(key_set(settings.jwt_jwks).find, settings)
    if settings.jwt_issuer or settings.jwt_audience:
        raise SettingsError(
            "EVENTSTORE_JWT_ISSUER, EVENTSTORE_JWT_AUDIENCE: no JWT is accepted without a key: "
            "give EVENTSTORE_JWT_KEY or EVENTSTORE_JWT_JWKS too"
        )
    return None


# Keys that verify signatures. The kind of a key alone determines its algorithms.

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
MAX_FILE_BYTES = 1024 * 1024
_DIGEST_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key that verifies signatures.

    Attributes:
        algorithms: the algorithms that a token may name; never those of another kind of key, so that a public key
            cannot be used as the secret of an HMAC.
    """

    key: Any = field(repr=False)
    algorithms: tuple[str, ...]


def configured_key(value: SecretStr) -> VerifyingKey:
    """Return the key of ``EVENTSTORE_JWT_KEY``: the secret of an HMAC, a public key as PEM, or a path of a PEM file.

    Raises:
        SettingsError: it is not a usable key, or too weak.
    """
    text = value.get_secret_value()
    if _PEM in text:
        return _key_from_pem(text)
    if text.startswith(("/", "./", "../", "~")) or text.endswith((".pem", ".pub", ".key", ".crt")):
        # A mistyped path must not become a secret that can be guessed.
        try:
            return _key_from_pem(_read_file(Path(text).expanduser()).decode("ascii", "replace"))
        except OSError as error:
            raise _unusable(f"it looks like the path of a PEM file, which cannot be read ({error.strerror})") from None
    secret = text.encode()
    if len(secret) < MIN_SECRET_BYTES:
        raise _unusable(f"a secret has at least {MIN_SECRET_BYTES} bytes")
    if text.lstrip().startswith("{"):
        raise _unusable("this is a JWK: put it into a file and name that in EVENTSTORE_JWT_JWKS")
    return VerifyingKey(secret, tuple(name for name, size in _DIGEST_BYTES.items() if len(secret) >= size))


def _key_from_pem(text: str) -> VerifyingKey:
    if "PRIVATE KEY" in text:
        raise _unusable("this is a private key, which only the issuer should have: give the public one")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable("no public key as PEM can be read from it") from None
    if not (algorithms := _algorithms(key)):
        raise _unusable(f"RSA of at least {MIN_RSA_BITS} bits, the curves P-256, P-384, P-521, and Ed25519 are usable")
    return VerifyingKey(key, algorithms)


def _key_from_jwk(jwk: Any) -> VerifyingKey | None:
    """Return the public key of a member of a JWKS; None if it cannot verify signatures safely."""
    if not isinstance(jwk, dict) or jwk.get("kty") not in ("RSA", "EC", "OKP") or "d" in jwk:
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in jwk.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms(key)
    if (declared := jwk.get("alg")) is not None:
        algorithms = tuple(name for name in algorithms if name == declared)
    return VerifyingKey(key, algorithms) if algorithms else None


def _algorithms(key: Any) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA if key.key_size >= MIN_RSA_BITS else ()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return tuple(name for curve, name in _CURVES.items() if curve == key.curve.name)
    return ("EdDSA",) if isinstance(key, ed25519.Ed25519PublicKey) else ()


def _unusable(reason: str) -> SettingsError:
    """Return an error that does not quote the key: it may be a secret."""
    return SettingsError(f"EVENTSTORE_JWT_KEY: {reason}: give a secret, a public key as PEM, or the path of a PEM file")


# The JWKS of an issuer, from a file or a URL: cached, and read again if a token names a key that is not in it

FRESH_SECONDS = 300.0
"""After this the set is read again, so that keys that the issuer withdrew are forgotten."""
LASTING_SECONDS = 3600.0
"""The time for which the set is used if it cannot be read again."""
AGAIN_SECONDS = 60.0
"""The shortest time between readings for a key that is not in the set."""
RETRY_SECONDS = 5.0
"""The shortest time between readings while there is no usable set."""
_FETCH_SECONDS = 5.0
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class KeySet:
    """The keys of a JWKS.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._source = read
        self._clock = clock
        self._keys: dict[str | None, VerifyingKey] = {}
        self._read_at = self._tried_at = self._missed_at = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, key_id: str | None) -> VerifyingKey | None:
        """Return the key of that id, or the only key for None; None if there is none.

        Raises:
            KeysUnavailable: the set could not be read for too long, or never.
        """
        await self._keep_fresh()
        if key_id not in self._keys and self._may_read_for_missing_key():
            async with self._lock:
                if key_id not in self._keys and self._may_read_for_missing_key():
                    self._missed_at = self._clock()
                    await self._read()
        return self._keys.get(key_id)

    def _may_read_for_missing_key(self) -> bool:
        return self._clock() - self._missed_at >= AGAIN_SECONDS

    async def _keep_fresh(self) -> None:
        if self._clock() - self._read_at < FRESH_SECONDS:
            return
        is_usable = self._clock() - self._read_at < LASTING_SECONDS
        if not (is_usable and self._lock.locked()):  # while one caller reads it again, the others use what there is
            async with self._lock:
                pause = AGAIN_SECONDS if is_usable else RETRY_SECONDS
                if self._clock() - max(self._read_at, self._tried_at) >= pause:
                    await self._read()
        if self._clock() - self._read_at >= LASTING_SECONDS:
            self._keys = {}
            # The place of the keys is in the log only, not in the response to callers.
            raise KeysUnavailable("the keys that JWT are verified with cannot be read now: repeat the request later")

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = _parse_jwks(await self._source())
        except (OSError, ValueError, TimeoutError, httpx.HTTPError) as error:
            reason = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
            text = "the keys of the tokens' issuer cannot be read from %s: %s"
            _log.warning(text, self.name, reason, extra={"event": "jwt_keys_unreadable"})
        else:
            self._read_at = self._clock()


def key_set(location: str) -> KeySet:
    """Return the key set of ``EVENTSTORE_JWT_JWKS``, which is a path or a URL.

    Raises:
        SettingsError: the file cannot be used, or the URL is not safe.
    """
    if "://" not in location:
        path = Path(location).expanduser()
        try:
            _parse_jwks(_read_file(path))
        except (OSError, ValueError) as error:
            reason = printable(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
            raise SettingsError(
                f"EVENTSTORE_JWT_JWKS: {show_name(location)}: {reason}: give a JWKS file or its https URL"
            ) from None
        return KeySet(lambda: asyncio.to_thread(_read_file, path), str(path))
    try:
        parts = urlsplit(location)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    # Over plain HTTP an attacker on the network path could insert a key.
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise SettingsError("EVENTSTORE_JWT_JWKS: is not an https URL: give one (http only on this machine), or a path")
    check_url(location, "EVENTSTORE_JWT_JWKS")
    return KeySet(lambda: _fetch(location), show_url(location))


def _parse_jwks(text: bytes) -> dict[str | None, VerifyingKey]:
    """Return the usable keys of a JWKS by their ids; None is the id of the only usable key, if there is one.

    Raises:
        ValueError: it is not a JWKS, or has no usable key.
    """
    value = load_json(text)
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise ValueError('it is not a JWKS: {"keys": […]} was expected')
    usable = [(jwk.get("kid"), key) for jwk in value["keys"] if (key := _key_from_jwk(jwk)) is not None]
    keys: dict[str | None, VerifyingKey] = {}
    for key_id, key in usable:
        if isinstance(key_id, str):
            keys.setdefault(key_id, key)
    if len(usable) == 1:
        keys[None] = usable[0][1]
    if not keys:
        raise ValueError("it has no public key that verifies signatures")
    return keys


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)


async def _fetch(url: str) -> bytes:
    """Return the body of a response without redirects, within limits of time and size."""
    async with (
        asyncio.timeout(_FETCH_SECONDS),
        open_client(limit=MAX_FILE_BYTES, timeout=_FETCH_SECONDS) as client,
        client.stream("GET", url, headers=_HEADERS) as response,
    ):
        if response.status_code != 200:
            raise ValueError(f"it responds with status {response.status_code}")
        try:
            return await response.aread()
        except ResponseTooLarge:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes") from None
