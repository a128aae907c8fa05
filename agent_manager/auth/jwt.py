"""JSON Web Tokens: verification keys, JWKS of an issuer, and the claims of a token."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

from agent_manager.auth.directory import checked_user
from agent_manager.auth.identity import KeysUnavailable, Scope
from agent_manager.http_client import ResponseTooLarge, load_json, open_client
from agent_manager.settings import ServerSettings
from eventstore.errors import InputError, SettingsError, printable
from eventstore.scope import checked_tenant
from eventstore.urls import check_url, show_name, show_url

# Keys with which the signatures of JWT are checked; which algorithms each allows is a matter of its kind alone

SHORTEST_SECRET = 32
SHORTEST_RSA = 2048
LARGEST_FILE = 1024 * 1024
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_PEM = "-----BEGIN "


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, and the algorithms with which a token may say that it was signed.

    Attributes:
        algorithms: never those of another kind of key: a public key is not taken for the secret of an HMAC.
    """

    key: Any = field(repr=False)
    algorithms: tuple[str, ...]


def configured_key(given: SecretStr) -> VerifyingKey:
    """The key that ``EVENTSTORE_JWT_KEY`` is: the secret of an HMAC, a public key as PEM, or the path of a PEM file.

    Raises:
        SettingsError: it is none, or too weak.
    """
    text = given.get_secret_value()
    if _PEM in text:
        return _from_pem(text)
    if text.startswith(("/", "./", "../", "~")) or text.endswith((".pem", ".pub", ".key", ".crt")):
        # A path that is mistyped must not become a secret that can be guessed.
        return _from_pem(_read(Path(text).expanduser()))
    secret = text.encode()
    if len(secret) < SHORTEST_SECRET:
        raise _unusable(f"a secret has at least {SHORTEST_SECRET} bytes")
    if text.lstrip().startswith("{"):
        raise _unusable("this is a JWK: put it into a file and name that in EVENTSTORE_JWT_JWKS")
    # Each wants a secret as long as its digest.
    sizes = {"HS256": 32, "HS384": 48, "HS512": 64}
    return VerifyingKey(secret, tuple(name for name, size in sizes.items() if len(secret) >= size))


def from_jwk(jwk: Any) -> VerifyingKey | None:
    """The public key that a member of a JWKS is; None where it is none that can check signatures safely."""
    if not isinstance(jwk, dict) or jwk.get("kty") not in ("RSA", "EC", "OKP") or "d" in jwk:
        return None
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in jwk.items() if name != "alg"}).key
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    allowed = _algorithms(key)
    if (said := jwk.get("alg")) is not None:
        allowed = tuple(name for name in allowed if name == said)
    return VerifyingKey(key, allowed) if allowed else None


def keys_of(text: bytes) -> dict[str | None, VerifyingKey]:
    """The usable keys of a JWKS by their ids; one without an id counts only where it is alone.

    Raises:
        ValueError: it is no JWKS.
    """
    value = load_json(text)
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise ValueError('it is no JWKS: {"keys": […]} was expected')
    usable = [(jwk.get("kid"), key) for jwk in value["keys"] if (key := from_jwk(jwk)) is not None]
    keys: dict[str | None, VerifyingKey] = {}
    for name, key in usable:
        if isinstance(name, str):
            keys.setdefault(name, key)
    if len(usable) == 1:
        keys[None] = usable[0][1]
    if not keys:
        raise ValueError("it has no public key that signs tokens")
    return keys


def _from_pem(text: str) -> VerifyingKey:
    if "PRIVATE KEY" in text:
        raise _unusable("this is a private key, which only the issuer should have: give the public one")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _unusable("no public key as PEM can be read from it") from None
    if not (allowed := _algorithms(key)):
        raise _unusable(f"RSA of at least {SHORTEST_RSA} bits, the curves P-256, P-384, P-521, and Ed25519 are usable")
    return VerifyingKey(key, allowed)


def _algorithms(key: Any) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA if key.key_size >= SHORTEST_RSA else ()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return tuple(name for curve, name in _CURVES.items() if curve == key.curve.name)
    return ("EdDSA",) if isinstance(key, ed25519.Ed25519PublicKey) else ()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE).decode("ascii", "replace")
    except OSError as error:
        raise _unusable(f"it looks like the path of a PEM file, which cannot be read ({error.strerror})") from None


def _unusable(why: str) -> SettingsError:
    """What is wrong with it, without a word of it: it may be a secret."""
    return SettingsError(f"EVENTSTORE_JWT_KEY: {why}: give a secret, a public key as PEM, or the path of a PEM file")


# The keys of an issuer, a JWKS from a file or a URL: remembered, and read again when one appears that is not in it

_log = logging.getLogger(__name__)

FRESH_SECONDS = 300.0
"""After so long the set is read again, so that keys that the issuer withdrew are forgotten."""
LASTING_SECONDS = 3600.0
"""So long it is gone by where it cannot be read again."""
AGAIN_SECONDS = 60.0
"""At most so often it is read again for a key that is not in it."""
RETRY_SECONDS = 5.0
"""At most so often where there is none to go by."""
_FETCH_SECONDS = 5.0
_HEADERS = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class KeySet:
    """A JWKS.

    Args:
        read: its text.
        name: of the file or URL, as it may be shown.
        clock: seconds that only grow.
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
        """The key of that id, or the only key for None; None where there is none.

        Raises:
            KeysUnavailable: the set could not be read for too long, or never.
        """
        await self._keep_fresh()
        found = self._keys.get(key_id)
        if found is None and self._clock() - self._missed_at >= AGAIN_SECONDS:
            async with self._lock:
                if key_id not in self._keys and self._clock() - self._missed_at >= AGAIN_SECONDS:
                    self._missed_at = self._clock()
                    await self._read()
            found = self._keys.get(key_id)
        return found

    async def _keep_fresh(self) -> None:
        if self._clock() - self._read_at < FRESH_SECONDS:
            return
        is_usable = self._clock() - self._read_at < LASTING_SECONDS
        if not (is_usable and self._lock.locked()):  # while somebody reads it anew, the others go by what there is
            async with self._lock:
                pause = AGAIN_SECONDS if is_usable else RETRY_SECONDS
                if self._clock() - max(self._read_at, self._tried_at) >= pause:
                    await self._read()
        if self._clock() - self._read_at >= LASTING_SECONDS:
            self._keys = {}
            # Callers are not told where the keys are; the log is.
            raise KeysUnavailable("the keys that JWT are verified with cannot be read now: repeat the request later")

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = keys_of(await self._source())
        except (OSError, ValueError, TimeoutError, httpx.HTTPError) as error:
            said = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
            _log.warning("the keys of the tokens' issuer cannot be read from %s: %s", self.name, said)
        else:
            self._read_at = self._clock()


def key_set(given: str) -> KeySet:
    """The set that ``EVENTSTORE_JWT_JWKS`` names: a path, or a URL.

    Raises:
        SettingsError: the file is not there, or the URL is not safe.
    """
    if "://" not in given:
        path = Path(given).expanduser()
        try:
            keys_of(_read_file(path))
        except (OSError, ValueError) as error:
            why = printable(error.strerror if isinstance(error, OSError) and error.strerror else str(error))
            raise SettingsError(
                f"EVENTSTORE_JWT_JWKS: {show_name(given)}: {why}: give a JWKS file or its https URL"
            ) from None
        return KeySet(lambda: asyncio.to_thread(_read_file, path), str(path))
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    # Over plain HTTP anybody on the way could put in a key of their own.
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        raise SettingsError("EVENTSTORE_JWT_JWKS: is no https URL: give one (http only on this machine), or a path")
    check_url(given, "EVENTSTORE_JWT_JWKS")
    return KeySet(lambda: _fetch(given), show_url(given))


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_FILE)


async def _fetch(url: str) -> bytes:
    """The body, which must come whole, directly (no redirects), soon and small."""
    async with (
        asyncio.timeout(_FETCH_SECONDS),
        open_client(limit=LARGEST_FILE, timeout=_FETCH_SECONDS) as client,
        client.stream("GET", url, headers=_HEADERS) as answer,
    ):
        if answer.status_code != 200:
            raise ValueError(f"it answers with status {answer.status_code}")
        try:
            return await answer.aread()
        except ResponseTooLarge:
            raise ValueError(f"it is larger than {LARGEST_FILE:,} bytes") from None


# JWT: whether one was signed by the configured issuer for us, and whom it names

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
class TokenSubject:
    """Whom a token names.

    Attributes:
        until: when it expires, in seconds since 1970.
    """

    tenant: str
    user: str
    scopes: frozenset[Scope]
    until: float


@dataclass(frozen=True, slots=True)
class InvalidToken:
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

    def __init__(self, keys: Keys, settings: ServerSettings) -> None:
        self._keys = keys
        self._issuer = settings.jwt_issuer or None
        self._audience = settings.jwt_audience or None
        self._tenant_claim = settings.jwt_tenant_claim
        self._user_claim = settings.jwt_user_claim
        self._required = ["exp"] + ["iss"] * bool(self._issuer) + ["aud"] * bool(self._audience)

    async def read(self, token: SecretStr) -> TokenSubject | InvalidToken:
        """Whom the token names.

        It returns refusals instead of raising them, so that no error has a frame in which a token stands.

        Raises:
            KeysUnavailable: the keys cannot be read now.
        """
        try:
            key_id = jwt.get_unverified_header(token.get_secret_value()).get("kid")
        except _MALFORMED:
            return InvalidToken("it is no JWT")
        key = await self._keys.find(key_id)
        if key is None:
            return InvalidToken("it is signed with a key that is unknown")
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
            return InvalidToken(type(error).__name__)

    def _named(self, payload: dict[str, Any]) -> TokenSubject | InvalidToken:
        try:
            tenant = checked_tenant(payload.get(self._tenant_claim, ""))
            user = checked_user(payload.get(self._user_claim, ""))
        except InputError:
            return InvalidToken("a claim that names tenant or user is missing or is no name")
        if (scopes := _scopes(payload)) is None:
            return InvalidToken("its scopes are no text and no list of texts")
        return TokenSubject(tenant, user, scopes, float(payload["exp"]))


def jwt_reader(settings: ServerSettings) -> JwtReader | None:
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
