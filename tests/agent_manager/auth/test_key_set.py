"""The keys of an issuer: from a file, from a server, rotated, withdrawn, unreachable."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.authentication import OpenAuthenticator, is_rejected
from support.ports import free_port
from support.tokens import SECRET, Issuer, ec_issuer, ed_issuer, jwks, rsa_issuer

from agent_manager.auth.identity import KeysUnavailable
from agent_manager.auth.jwt import (
    AGAIN_SECONDS,
    FRESH_SECONDS,
    LASTING_SECONDS,
    MAX_FILE_BYTES,
    RETRY_SECONDS,
    KeySet,
    key_set,
)
from eventstore.errors import SettingsError

pytestmark = pytest.mark.shared_database


class Shelf:
    """The published keys of an issuer, a clock that is set by hand, and the number of reads."""

    def __init__(self, *issuers: Issuer) -> None:
        self.text = jwks(*issuers).encode()
        self.reads = 0
        self.now = 1000.0
        self.is_away = False
        self.keys = KeySet(self._read, "the shelf", lambda: self.now)

    async def _read(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError("it is away")
        return self.text

    async def has(self, key_id: str | None) -> bool:
        return await self.keys.find(key_id) is not None


async def test_a_key_set_is_read_once_for_many_tokens() -> None:
    shelf = Shelf(rsa_issuer(), ec_issuer("second"))
    assert await asyncio.gather(*(shelf.has(name) for name in ["first", "second"] * 50)) == [True] * 100
    assert shelf.reads == 1


async def test_a_key_that_is_new_is_found_at_once() -> None:
    shelf = Shelf(rsa_issuer())
    assert await shelf.has("first")
    shelf.text = jwks(rsa_issuer(), ec_issuer("second")).encode()
    assert await shelf.has("second")
    assert shelf.reads == 2


async def test_a_flood_of_unknown_keys_causes_one_read_a_minute() -> None:
    shelf = Shelf(rsa_issuer())
    assert not any(await asyncio.gather(*(shelf.has(f"unknown {number}") for number in range(100))))
    assert shelf.reads == 2
    shelf.now += AGAIN_SECONDS - 1
    assert not await shelf.has("unknown")
    assert shelf.reads == 2
    shelf.now += 1
    assert not await shelf.has("unknown")
    assert not await shelf.has("unknown")
    assert shelf.reads == 3
    assert await shelf.has("first")


async def test_a_withdrawn_key_is_no_longer_accepted() -> None:
    shelf = Shelf(rsa_issuer(), ec_issuer("second"))
    assert await shelf.has("second")
    shelf.text = jwks(rsa_issuer()).encode()
    shelf.now += FRESH_SECONDS - 1
    assert await shelf.has("second")
    shelf.now += 1
    assert not await shelf.has("second")
    assert await shelf.has("first")


async def test_an_unreadable_key_set_stays_in_use_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf(rsa_issuer())
    assert await shelf.has("first")
    shelf.is_away = True
    shelf.now += LASTING_SECONDS - 1
    assert await shelf.has("first")
    assert "cannot be read from the shelf: it is away" in caplog.text
    shelf.now += 1
    with pytest.raises(KeysUnavailable, match="cannot be read now"):
        await shelf.has("first")
    shelf.is_away = False
    shelf.now += RETRY_SECONDS
    assert await shelf.has("first")


async def test_an_unreadable_key_set_is_retried_at_intervals() -> None:
    shelf = Shelf(rsa_issuer())
    shelf.is_away = True
    for _ in range(10):
        with pytest.raises(KeysUnavailable):
            await shelf.has("first")
    assert shelf.reads == 1
    shelf.now += RETRY_SECONDS
    shelf.is_away = False
    assert await shelf.has("first")


@pytest.mark.parametrize("broken", [b"", b"no json", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"[" * 100_000])
async def test_an_invalid_key_set_does_not_replace_a_valid_one(broken: bytes) -> None:
    shelf = Shelf(rsa_issuer())
    assert await shelf.has("first")
    shelf.text = broken
    shelf.now += FRESH_SECONDS
    assert await shelf.has("first")
    assert shelf.reads == 2


async def test_a_token_without_a_key_id_is_verified_by_the_only_key() -> None:
    assert await Shelf(rsa_issuer()).has(None)
    assert not await Shelf(rsa_issuer(), ec_issuer("second")).has(None)


UNUSABLE: dict[str, dict[str, Any]] = {
    "for encryption": {"use": "enc"},
    "not for checking": {"key_ops": ["encrypt"]},
    "of another kind": {"kty": "EC"},
    "of an unknown kind": {"kty": "XYZ"},
    "for an algorithm of another kind": {"alg": "HS256"},
    "for no algorithm": {"alg": "none"},
    "for an algorithm that is not a text": {"alg": 7},
    "with its private part": {"d": "AQAB"},
    "broken": {"n": "!"},
    "a secret": {"kty": "oct", "k": "c2VjcmV0" * 8},
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE)
async def test_unusable_keys_are_ignored(change: dict[str, Any]) -> None:
    shelf = Shelf(ec_issuer("second"))
    keys = [rsa_issuer().jwk | change, "no key", None, ec_issuer("second").jwk]
    shelf.text = json.dumps({"keys": keys}).encode()
    assert not await shelf.has("first")
    assert await shelf.has("second")


async def test_a_weak_key_is_ignored() -> None:
    shelf = Shelf(rsa_issuer("weak", 1024), ed_issuer("second"))
    assert not await shelf.has("weak")


async def test_a_key_is_used_only_for_its_declared_algorithm() -> None:
    shelf = Shelf(rsa_issuer())
    shelf.text = json.dumps({"keys": [rsa_issuer().jwk | {"alg": "RS512"}]}).encode()
    found = await shelf.keys.find("first")
    assert found is not None
    assert found.algorithms == ("RS512",)


async def test_tokens_are_verified_with_a_jwks_file(open_authenticator: OpenAuthenticator, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(jwks(rsa_issuer(), ec_issuer("second")))
    authenticator = await open_authenticator(jwt_jwks=str(file))
    assert (await authenticator.identify(rsa_issuer().token())).user == "ana"
    assert (await authenticator.identify(ec_issuer("second").token())).user == "ana"
    assert await is_rejected(authenticator, rsa_issuer("third").token())
    # Somebody else's key under a name that is known; and another kind of key than the name stands for.
    assert await is_rejected(authenticator, Issuer("RS256", rsa_issuer("third").key).token())
    assert await is_rejected(authenticator, Issuer("RS256", rsa_issuer().key, "second").token())


async def test_a_key_that_is_added_to_the_file_is_found(open_authenticator: OpenAuthenticator, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(jwks(rsa_issuer()))
    authenticator = await open_authenticator(jwt_jwks=str(file))
    assert not await is_rejected(authenticator, rsa_issuer().token())
    file.write_text(jwks(rsa_issuer("next")))
    assert not await is_rejected(authenticator, rsa_issuer("next").token())
    assert await is_rejected(authenticator, rsa_issuer().token(jti="not the one that is remembered"))


class Site(ThreadingHTTPServer):
    """A server of this machine that answers with what a test sets."""

    daemon_threads = True
    status = 200
    body = b""
    location = ""
    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        assert isinstance(site, Site)
        site.asked += 1
        self.send_response(site.status)
        self.send_header("Content-Length", str(len(site.body)))
        if site.location:
            self.send_header("Location", site.location)
        self.end_headers()
        self.wfile.write(site.body)

    def log_message(self, *_: Any) -> None:
        """The tests need no log of it."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


async def test_tokens_are_verified_with_a_jwks_url(open_authenticator: OpenAuthenticator, site: Site) -> None:
    site.body = jwks(rsa_issuer()).encode()
    authenticator = await open_authenticator(jwt_jwks=site.url)
    assert not await is_rejected(authenticator, rsa_issuer().token())
    site.body = jwks(ec_issuer("next")).encode()
    assert not await is_rejected(authenticator, ec_issuer("next").token())
    assert await is_rejected(authenticator, rsa_issuer().token(jti="another"))
    assert site.asked == 2


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (200, b"<html>", "Expecting value"),
        (200, b" " * (MAX_FILE_BYTES + 1), "larger than"),
    ],
)
async def test_no_token_is_accepted_if_the_jwks_url_returns_no_key_set(
    open_authenticator: OpenAuthenticator,
    site: Site,
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
    expected: str,
) -> None:
    site.status, site.body, site.location = status, body, site.url if status == 302 else ""
    authenticator = await open_authenticator(jwt_jwks=site.url)
    with pytest.raises(KeysUnavailable, match="repeat the request later"):
        await authenticator.identify(rsa_issuer().token())
    assert expected in caplog.text
    assert site.asked == 1


async def test_static_keys_work_while_the_jwks_is_unavailable(open_authenticator: OpenAuthenticator) -> None:
    authenticator = await open_authenticator(jwt_jwks=f"http://user:hidden@127.0.0.1:{free_port()}/jwks?code=hidden")
    with pytest.raises(KeysUnavailable, match="cannot be read now") as error:
        await authenticator.identify(rsa_issuer().token())
    assert "hidden" not in str(error.value)
    assert "127.0.0.1" not in str(error.value)
    assert await is_rejected(authenticator, f"es_{'a' * 12}_{'A' * 43}")


@pytest.mark.parametrize(
    "given",
    ["http://keys.example/jwks", "ftp://keys.example/jwks", "file:///etc/passwd", "https://", "https://[x", "://"],
)
def test_an_unsafe_jwks_url_is_rejected(given: str) -> None:
    with pytest.raises(SettingsError, match=r"EVENTSTORE_JWT_JWKS: is not an https URL"):
        key_set(given)


def test_a_file_that_is_not_a_key_set_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"EVENTSTORE_JWT_JWKS: .*No such file"):
        key_set(str(tmp_path / "none.json"))
    (tmp_path / "jwks.json").write_text(SECRET)
    with pytest.raises(SettingsError, match="EVENTSTORE_JWT_JWKS: ") as error:
        key_set(str(tmp_path / "jwks.json"))
    assert SECRET not in str(error.value)
