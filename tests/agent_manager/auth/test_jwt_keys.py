"""The configured key for JWT: what is usable, and what is rejected."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from support.tokens import SECRET, ec_issuer, ed_issuer, rsa_issuer

from agent_manager.auth.jwt import VerifyingKey, configured_key, jwt_reader
from agent_manager.settings import ServerSettings
from eventstore.errors import SettingsError

pytestmark = [pytest.mark.any_server, pytest.mark.usefixtures("clean_environment")]


def key(text: str) -> VerifyingKey:
    return configured_key(SecretStr(text))


def test_the_kind_of_a_key_alone_decides_its_algorithms() -> None:
    assert key("x" * 32).algorithms == ("HS256",)
    assert key("x" * 48).algorithms == ("HS256", "HS384")
    assert key("x" * 64).algorithms == ("HS256", "HS384", "HS512")
    assert set(key(rsa_issuer().pem).algorithms) == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert key(ec_issuer().pem).algorithms == ("ES256",)
    assert key(ed_issuer().pem).algorithms == ("EdDSA",)


def test_a_public_key_can_be_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "issuer.pem").write_text(rsa_issuer().pem)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (str(tmp_path / "issuer.pem"), "issuer.pem", "./issuer.pem", "~/issuer.pem"):
        assert key(path).algorithms == key(rsa_issuer().pem).algorithms


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("short", "at least 32 bytes"),
        ("x" * 31, "at least 32 bytes"),
        # Paths that are mistyped: as secrets they could be guessed.
        ("/etc/eventstore/keys/of-the-issuer-of-our-tokens.pem", "cannot be read"),
        ("/etc/eventstore/keys/of-the-issuer-of-our-tokens", "cannot be read"),
        ("~/keys/of-the-issuer-of-our-tokens-in-here", "cannot be read"),
        ("../keys/of-the-issuer-of-our-tokens-in-here", "cannot be read"),
        ("keys/of-the-issuer-of-our-tokens-in-here.pem", "cannot be read"),
        ('{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0"}', "this is a JWK"),
        (rsa_issuer().private_pem, "this is a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "no public key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "no public key"),
        (rsa_issuer("weak", 1024).pem, "at least 2048 bits"),
        (ec_issuer("odd", ec.SECP256K1, "ES256K").pem, "P-256, P-384, P-521"),
    ],
)
def test_an_unusable_key_is_rejected_without_being_quoted(text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as error:
        key(text)
    assert str(error.value).startswith("EVENTSTORE_JWT_KEY: ")
    assert text not in str(error.value)


def test_a_file_without_a_key_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRET)
    with pytest.raises(SettingsError, match="no public key"):
        key(str(tmp_path / "key"))


def test_contradictory_settings_are_rejected() -> None:
    with pytest.raises(SettingsError, match="give one of them"):
        jwt_reader(ServerSettings(jwt_key=SecretStr(SECRET), jwt_jwks="jwks.json"))
    with pytest.raises(SettingsError, match="no JWT is accepted without a key"):
        jwt_reader(ServerSettings(jwt_issuer="https://issuer.example"))
    with pytest.raises(SettingsError, match="no JWT is accepted without a key"):
        jwt_reader(ServerSettings(jwt_audience="store"))
    with pytest.raises(SettingsError, match="EVENTSTORE_JWT_TENANT_CLAIM"):
        ServerSettings(jwt_tenant_claim="")


def test_an_empty_jwt_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_JWT_KEY", "")
    assert jwt_reader(ServerSettings()) is None
