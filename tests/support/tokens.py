"""Tokens for the tests of identity: keys of issuers, JWT of every kind, and forgeries made by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

Json = dict[str, Any]

SECRET = "a secret of the tests that is long enough"


@dataclass(frozen=True)
class Issuer:
    """Somebody who signs tokens.

    Attributes:
        algorithm: with which they sign.
        key: their private key.
        key_id: what they call it.
    """

    algorithm: str
    key: Any
    key_id: str = "first"

    @property
    def pem(self) -> str:
        """The public key."""
        return str(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "ascii")

    @property
    def private_pem(self) -> str:
        """The private key."""
        return str(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "ascii")

    @property
    def jwk(self) -> Json:
        """The public key as a member of a JWKS."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return {**algorithm.to_jwk(self.key.public_key(), as_dict=True), "kid": self.key_id, "use": "sig"}

    def token(self, headers: Json | None = None, **claims: Any) -> str:
        """A token with the usual claims and these; a claim that is None is left out."""
        return jwt.encode(claims_with(claims), self.key, self.algorithm, headers={"kid": self.key_id} | (headers or {}))


def claims_with(claims: Json) -> Json:
    """The usual claims and these, without those that are None."""
    usual = {"tenant": "acme", "sub": "ana", "exp": time.time() + 600}
    return {name: value for name, value in (usual | claims).items() if value is not None}


@cache
def rsa_issuer(key_id: str = "first", bits: int = 2048) -> Issuer:
    """Return an issuer with an RSA key, the same in each call."""
    return Issuer("RS256", rsa.generate_private_key(65537, bits), key_id)


@cache
def ec_issuer(key_id: str = "first", curve: type[ec.EllipticCurve] = ec.SECP256R1, algorithm: str = "ES256") -> Issuer:
    """Return an issuer with a key on an elliptic curve."""
    return Issuer(algorithm, ec.generate_private_key(curve()), key_id)


@cache
def ed_issuer(key_id: str = "first") -> Issuer:
    """Return an issuer with an Ed25519 key."""
    return Issuer("EdDSA", ed25519.Ed25519PrivateKey.generate(), key_id)


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token signed with a secret."""
    return jwt.encode(claims_with(claims), secret, algorithm)


def by_hand(header: Json, claims: Json, secret: bytes | None) -> str:
    """A token that no library would make: signed as HS256 with any bytes, or not at all."""
    text = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    signature = b"" if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{encoded(signature)}"


def encoded(value: bytes) -> str:
    """Return bytes as a part of a token."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def jwks(*issuers: Issuer) -> str:
    """Return the JWKS of issuers."""
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]})
