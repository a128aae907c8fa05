"""No secret appears in reprs, errors, tracebacks with local variables, logs or lists."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest
from pydantic import SecretStr
from support.authentication import OpenAuthenticator
from support.tokens import SECRET, rsa_issuer, signed

from agent_manager.auth import Authenticator, Directory
from agent_manager.auth.jwt import configured_key
from agent_manager.auth.keys import StaticKey
from agent_manager.settings import ServerSettings
from eventstore import EventStore
from eventstore.errors import SettingsError

pytestmark = pytest.mark.shared_database


def text_of(error: BaseException) -> str:
    """All that a thorough report of an error has: its chain, and the variables of each frame of ours."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = []
    for part in (report, report.__cause__, report.__context__):
        for frame in part.stack if part else ():
            if "/tests/" not in frame.filename:
                lines += [str(frame), repr(frame.locals)]
    return "".join([*lines, *traceback.format_exception(error), repr(error), str(error)])


async def refusal(authenticator: Authenticator, token: str) -> BaseException:
    try:
        await authenticator.identify(token)
    except Exception as error:
        return error
    raise AssertionError("the token is accepted")


@pytest.mark.parametrize(
    "token",
    [
        f"es_{'a' * 12}_{'S3cret' * 7}x",
        "S3cret-nonsense",
        "é S3cret",
        "S3cret" * 2000,
        signed("S3cret" * 8),
        signed(exp=1, note="S3cret"),
        signed(tenant=None, note="S3cret"),
        rsa_issuer().token(),
    ],
    ids=["unknown key", "nonsense", "not ASCII", "too long", "forged", "expired", "no tenant", "another algorithm"],
)
async def test_a_rejected_token_is_in_no_error_traceback_or_log(
    open_authenticator: OpenAuthenticator, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    caplog.set_level(logging.DEBUG)
    authenticator = await open_authenticator(jwt_key=SECRET)
    for _ in range(2):  # the second is remembered
        text = text_of(await refusal(authenticator, token))
        for hidden in {token, *(part for part in token.split(".") if len(part) > 8), "S3cret"}:
            assert hidden not in text
            assert hidden not in caplog.text


@pytest.mark.own_database
async def test_an_error_of_the_database_does_not_contain_the_token(
    store: EventStore, open_authenticator: OpenAuthenticator
) -> None:
    authenticator = await open_authenticator(jwt_key=SECRET)
    await store.close()
    for token in (f"es_{'a' * 12}_{'S3cret' * 7}x", signed(note="S3cret")):
        text = text_of(await refusal(authenticator, token))
        assert "not open" in text
        assert not any(part in text for part in ("S3cret", *token.split(".")))


async def test_a_new_key_shows_its_token_only_on_request(directory: Directory) -> None:
    new = await directory.add_key("acme", "laptop")
    assert new.token.get_secret_value().rpartition("_")[2] not in f"{new!r} {new} {new.key!r}"


def test_keys_are_shown_without_their_hashes() -> None:
    key, token = StaticKey.generate()
    assert StaticKey.parse(token) == key
    assert repr(key) == f"StaticKey(id='{key.id}')"
    assert SECRET not in repr(configured_key(SecretStr(SECRET)))


async def test_an_authenticator_does_not_show_its_keys(open_authenticator: OpenAuthenticator) -> None:
    authenticator = await open_authenticator(jwt_key=SECRET)
    await authenticator.identify(signed())
    seen: set[int] = set()

    def texts(value: Any) -> str:
        """The reprs of an object and of all that it is made of, except what hides a secret."""
        if id(value) in seen or len(seen) > 10_000:
            return ""
        seen.add(id(value))
        inner = vars(value).values() if hasattr(value, "__dict__") and not isinstance(value, SecretStr) else ()
        return "".join([repr(value), *map(texts, inner)])

    assert SECRET not in texts(authenticator)


def test_settings_hide_the_key_of_jwt(clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENTSTORE_JWT_KEY", SECRET)
    settings = ServerSettings()
    assert settings.jwt_key == SecretStr(SECRET)
    assert SECRET not in f"{settings!r} {settings} {settings.model_dump()}"


def test_an_unusable_key_is_in_no_traceback(clean_environment: None) -> None:
    with pytest.raises(SettingsError) as error:
        configured_key(SecretStr("S3cret"))
    assert "S3cret" not in str(error.value)
