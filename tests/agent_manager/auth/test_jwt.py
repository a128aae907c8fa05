"""Valid JWT name a subject; every other token is rejected."""

from __future__ import annotations

import base64
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from support.tokens import SECRET, Issuer, by_hand, claims_with, ec_issuer, ed_issuer, encoded, rsa_issuer, signed

from agent_manager.auth.jwt import LEEWAY_SECONDS, InvalidToken, JwtReader, ValidToken, jwt_reader
from agent_manager.settings import ServerSettings

pytestmark = pytest.mark.any_server


def reader_of(**settings: Any) -> JwtReader:
    nothing = {"jwt_jwks": "", "jwt_issuer": "", "jwt_audience": ""}
    reader = jwt_reader(ServerSettings(_env_file=None, **nothing | settings))
    assert reader is not None
    return reader


async def refuses(reader: JwtReader, token: str) -> bool:
    return isinstance(await reader.read(SecretStr(token)), InvalidToken)


ISSUERS = {
    "RSA": rsa_issuer, "P-256": ec_issuer, "P-384": lambda: ec_issuer("first", ec.SECP384R1, "ES384"),
    "P-521": lambda: ec_issuer("first", ec.SECP521R1, "ES512"), "Ed25519": ed_issuer,
}  # fmt: skip


@pytest.mark.parametrize("issuer", ISSUERS.values(), ids=ISSUERS)
async def test_a_public_key_of_each_kind_verifies_only_its_own_tokens(issuer: Any) -> None:
    reader = reader_of(jwt_key=issuer().pem)
    assert not await refuses(reader, issuer().token())
    for name, other in ISSUERS.items():
        if ISSUERS[name] is not issuer:
            assert await refuses(reader, other().token()), name
    stranger = Issuer(issuer().algorithm, _another(issuer()))
    assert await refuses(reader, stranger.token())


def _another(issuer: Issuer) -> Any:
    """A private key of the same kind."""
    if isinstance(issuer.key, ec.EllipticCurvePrivateKey):
        return ec.generate_private_key(issuer.key.curve)
    return (rsa_issuer("stranger") if issuer.algorithm == "RS256" else ed_issuer("stranger")).key


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_secret_verifies_tokens_with_a_digest_up_to_its_own_length(algorithm: str) -> None:
    long = "long enough for the longest digest " * 2
    assert not await refuses(reader_of(jwt_key=long), signed(long, algorithm))
    assert not await refuses(reader_of(jwt_key=SECRET), signed(SECRET))


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_an_rsa_key_verifies_every_rsa_algorithm(algorithm: str) -> None:
    issuer = Issuer(algorithm, rsa_issuer().key)
    assert not await refuses(reader_of(jwt_key=rsa_issuer().pem), issuer.token())


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 7, ["HS256"]])
@pytest.mark.parametrize("key", [SECRET, rsa_issuer().pem], ids=["secret", "public key"])
async def test_an_unsigned_token_is_rejected(key: str, algorithm: Any) -> None:
    reader = reader_of(jwt_key=key)
    for secret in (None, b"", SECRET.encode()):
        assert await refuses(reader, by_hand({"alg": algorithm, "typ": "JWT"}, claims_with({}), secret))
    assert await refuses(reader, by_hand({"typ": "JWT"}, claims_with({}), SECRET.encode()))


@pytest.mark.parametrize("issuer", ISSUERS.values(), ids=ISSUERS)
async def test_a_public_key_is_not_used_as_the_secret_of_an_hmac(issuer: Any) -> None:
    reader = reader_of(jwt_key=issuer().pem)
    pem = issuer().pem
    der = base64.b64decode("".join(pem.splitlines()[1:-1]))
    for secret in (pem.encode(), pem.strip().encode(), der):
        forged = by_hand({"alg": "HS256", "typ": "JWT", "kid": "first"}, claims_with({}), secret)
        assert await refuses(reader, forged)


async def test_a_key_inside_a_token_is_not_used() -> None:
    reader = reader_of(jwt_key=rsa_issuer().pem)
    forger = rsa_issuer("forger")
    for headers in ({"jwk": forger.jwk}, {"jku": "http://127.0.0.1:1/jwks"}, {"x5u": "http://127.0.0.1:1/"}):
        assert await refuses(reader, forger.token(headers))


async def test_a_token_with_an_unknown_critical_header_is_rejected() -> None:
    reader = reader_of(jwt_key=rsa_issuer().pem)
    assert await refuses(reader, rsa_issuer().token({"crit": ["binding"], "binding": "x"}))


async def test_a_token_that_was_changed_after_signing_is_rejected() -> None:
    reader = reader_of(jwt_key=rsa_issuer().pem)
    header, claims, signature = rsa_issuer().token().split(".")
    other = rsa_issuer().token(sub="bob").split(".")
    assert await refuses(reader, f"{header}.{other[1]}.{signature}")
    assert await refuses(reader, f"{header}.{claims}.{signature[:-8]}")
    assert await refuses(reader, f"{header}.{claims}.")
    assert await refuses(reader, f"{header}.{claims}")
    assert not await refuses(reader, f"{header}.{claims}.{signature}")


DAY = 86_400
"""These claims are made when the tests are collected, perhaps long before they are run."""
REFUSED_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": {"exp": time.time() - 60},
    "no expiry": {"exp": None},
    "an expiry that is not a number": {"exp": "tomorrow"},
    "an expiry that is a list": {"exp": [1]},
    "an expiry that is infinite": {"exp": float("inf")},
    "an expiry that is not a time": {"exp": float("nan")},
    "not yet valid": {"nbf": time.time() + DAY},
    "issued in the future": {"iat": time.time() + DAY},
    "another issuer": {"iss": "https://other.example"},
    "no issuer": {"iss": None},
    "an issuer that begins alike": {"iss": "https://issuer.example.evil"},
    "another audience": {"aud": "shop"},
    "other audiences": {"aud": ["shop", "blog"]},
    "no audience": {"aud": None},
    "no tenant": {"tenant": None},
    "an empty tenant": {"tenant": ""},
    "a tenant that is a number": {"tenant": 7},
    "several tenants": {"tenant": ["acme", "globex"]},
    "a tenant with NUL": {"tenant": "ac\0me"},
    "no user": {"sub": None},
    "an empty user": {"sub": ""},
    "a user with NUL": {"sub": "a\0na"},
    "a user too long": {"sub": "a" * 256},
    "a user with half a character": {"sub": "\ud800"},
    "a user called like a key": {"sub": "key:billing"},
    "scopes that are a number": {"scope": 7},
    "scopes that are an object": {"scopes": {"read": True}},
}


@pytest.mark.parametrize("claims", REFUSED_CLAIMS.values(), ids=REFUSED_CLAIMS)
async def test_a_correctly_signed_token_with_invalid_claims_is_rejected(claims: dict[str, Any]) -> None:
    usual = {"iss": "https://issuer.example", "aud": "store"}
    reader = reader_of(jwt_key=SECRET, jwt_issuer=usual["iss"], jwt_audience=usual["aud"])
    assert not await refuses(reader, by_hand({"alg": "HS256"}, claims_with(usual), SECRET.encode()))
    assert await refuses(reader, by_hand({"alg": "HS256"}, claims_with(usual | claims), SECRET.encode()))


async def test_issuer_and_audience_are_checked_if_they_are_configured() -> None:
    assert not await refuses(reader_of(jwt_key=SECRET), signed(iss="anybody"))
    assert not await refuses(reader_of(jwt_key=SECRET, jwt_audience="store"), signed(aud=["store", "shop"]))
    # A token with an audience is not for a server that has none configured.
    assert await refuses(reader_of(jwt_key=SECRET), signed(aud="shop"))


async def test_clocks_may_differ_by_the_leeway() -> None:
    reader = reader_of(jwt_key=SECRET)
    assert not await refuses(reader, signed(exp=time.time() - LEEWAY_SECONDS / 2))
    assert not await refuses(reader, signed(nbf=time.time() + LEEWAY_SECONDS / 2))


async def test_the_claims_of_tenant_and_user_are_configurable() -> None:
    reader = reader_of(jwt_key=SECRET, jwt_tenant_claim="https://x/org", jwt_user_claim="email")
    token = signed(tenant="globex", sub="7", email="ana", **{"https://x/org": "acme"})
    named = await reader.read(SecretStr(token))
    assert isinstance(named, ValidToken)
    assert (named.identity.tenant, named.identity.user) == ("acme", "ana")
    assert await refuses(reader, signed())


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, {"read", "write"}),
        ({"scope": "audit openid read"}, {"audit", "read"}),
        ({"scope": "openid profile"}, set()),
        ({"scope": ""}, set()),
        ({"scope": "READ readwrite"}, set()),
        ({"scopes": ["erase", "x", 7]}, {"erase"}),
        ({"scopes": []}, set()),
        ({"scope": "read", "scopes": ["admin"]}, {"read"}),
        ({"scope": "admin"}, {"admin"}),
    ],
)
async def test_scopes_come_from_the_token(claims: dict[str, Any], scopes: set[str]) -> None:
    named = await reader_of(jwt_key=SECRET).read(SecretStr(signed(**claims)))
    assert isinstance(named, ValidToken)
    assert named.identity.scopes == scopes


READER = reader_of(jwt_key=SECRET)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
segments = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=. \n", max_size=60) | st.text(
    max_size=30
)


@given(st.lists(segments, min_size=1, max_size=5).map(".".join))
async def test_arbitrary_text_is_not_accepted_as_a_token(text: str) -> None:
    assert isinstance(await READER.read(SecretStr(text)), InvalidToken)


@given(st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "zip", "enc"]), json_values))
async def test_no_header_breaks_the_reader(header: dict[str, Any]) -> None:
    assert isinstance(await READER.read(SecretStr(by_hand(header, claims_with({}), None))), InvalidToken)


@given(
    st.dictionaries(
        st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "sub", "jti", "tenant", "scope", "scopes"]), json_values
    )
)
async def test_no_claims_break_the_reader(claims: dict[str, Any]) -> None:
    token = by_hand({"alg": "HS256"}, claims_with({}) | claims, SECRET.encode())
    assert isinstance(await READER.read(SecretStr(token)), ValidToken | InvalidToken)


@given(st.binary(min_size=32, max_size=32))
async def test_a_guessed_signature_is_rejected(signature: bytes) -> None:
    head = signed().rpartition(".")[0]
    assert isinstance(await READER.read(SecretStr(f"{head}.{encoded(signature)}")), InvalidToken)


async def test_a_deeply_nested_token_is_rejected() -> None:
    for text in ("[" * 6000, '{"a":' * 1200):
        deep = encoded(text.encode())
        assert isinstance(await READER.read(SecretStr(f"{deep}.{deep}.{deep}")), InvalidToken)
        usual = encoded(b'{"alg":"HS256"}')
        key = jwt.get_algorithm_by_name("HS256")
        signature = key.sign(f"{usual}.{deep}".encode(), SECRET.encode())
        assert isinstance(await READER.read(SecretStr(f"{usual}.{deep}.{encoded(signature)}")), InvalidToken)
