"""Keys with which the signatures of JWT are checked; which algorithms each allows is a matter of its kind alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

from agent_manager.fetching import load_json
from eventstore.errors import SettingsError

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
