"""No part of a password is shown, however the URL that holds it is written."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.examples import examples

from agent_manager.agents.agent_spec import agent_from_spec
from agent_manager.agents.cards import agent_url
from agent_manager.auth.jwt import key_set
from agent_manager.importers.a2a_demo import EndpointSource
from agent_manager.importers.backup import choose_backup
from agent_manager.importers.google_adk import AdkSource
from eventstore import Settings
from eventstore.database.server import Server
from eventstore.errors import EventStoreError, SettingsError
from eventstore.urls import check_url, show_name, show_url

pytestmark = pytest.mark.any_server

MARKS = "XZ"
"""Characters that no message has by itself."""
PASSWORDS = st.text(st.sampled_from(f"{MARKS}{MARKS}{MARKS}19 @/:?#[]%&=,+!$'\\\n\u00e9"), max_size=24)
FORMS = (
    "{scheme}://me:{password}@host/db", "{scheme}://{password}:me@host:1/db", "{scheme}://me:{password}@[::1]:1/db",
    "{scheme}://me@host/db?password={password}", "{scheme}://host/db?sslpassword={password}&user=me",
    "{scheme}://me:{password}@one:1,two:2/db?sslmode=require", "me:{password}@host/db", "host=h password={password}",
)  # fmt: skip


def use_settings(url: str) -> object:
    return Server(Settings(_env_file=None, database_url=url)).public_url


def use_parts(url: str) -> object:
    return show_url(Settings(_env_file=None, postgres_host=url, postgres_password="p").server_url() or "")


def use_endpoints(url: str) -> object:
    return EndpointSource(url).name


def use_jwks(url: str) -> object:
    return key_set(url).name


def use_answer(url: str) -> object:
    return getattr(agent_from_spec(url), "name", "")


def use_agent(url: str) -> object:
    return show_name(agent_url(url))


async def opened(source: AdkSource) -> str:
    async with source:
        return source.name


def use_file(url: str) -> object:
    return asyncio.run(opened(AdkSource(url)))


def use_backup(url: str) -> object:
    return choose_backup(Path("/nowhere"), "t", url)


USES = (
    show_url,
    show_name,
    use_settings,
    use_parts,
    use_endpoints,
    use_jwks,
    use_answer,
    use_agent,
    use_file,
    use_backup,
)


def shown_by(use: Callable[[str], object], url: str) -> str:
    """Return the result of a use of the URL, or the full report of its error."""
    try:
        return str(use(url))
    except (EventStoreError, ValueError) as error:  # ValueError: a path with a zero byte and the like
        lines = traceback.format_exception(error)
        return "".join(line for line in lines if not line.lstrip().startswith("File "))


def pieces(password: str) -> set[str]:
    """All parts of four characters that no message contains by itself."""
    found = {password[place : place + 4] for place in range(len(password) - 3)}
    return {piece for piece in found if any(mark in piece for mark in MARKS)}


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
@examples(150)
@given(password=PASSWORDS, form=st.sampled_from(FORMS), scheme=st.sampled_from(["postgresql", "postgres+x", "https"]))
@example(password="X3Z/XXZZ", form=FORMS[0], scheme="postgresql")
@example(password="12/XZXZXZ", form=FORMS[0], scheme="postgresql")
@example(password="12/XZXZXZ", form=FORMS[0], scheme="https")
@example(password="100%XZXZ", form=FORMS[0], scheme="postgresql")
@example(password="XXXX&ZZZZ", form=FORMS[3], scheme="postgresql")
@example(password="XXXX&ZZZZ=1", form=FORMS[3], scheme="postgresql")
@example(password="XX@ZZXX", form=FORMS[3], scheme="postgresql")
def test_no_part_of_a_password_is_shown(use: Callable[[str], object], password: str, form: str, scheme: str) -> None:
    if form.endswith("@host:1/db") and "postgres" in scheme:
        form = FORMS[0]  # there the second is the user, which is shown
    shown = shown_by(use, form.format(scheme=scheme, password=password))
    assert not [piece for piece in pieces(password) if piece in shown], shown


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    assert isinstance(show_url(text), str)
    assert isinstance(show_name(text), str)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://a:secret@h/d?password=x", "postgresql://a@h/d"),
        ("postgresql://a:s%40x@h:1,i:2/d?sslmode=require", "postgresql://a@h:1,i:2/d?sslmode=require"),
        ("postgresql://a:b@/d?host=%2Frun", "postgresql://a@/d?host=%2Frun"),
        ("postgresql://a:b@[::1]:5432/d", "postgresql://a@[::1]:5432/d"),
        ("https://token@agent.example/a?key=x", "https://agent.example/a"),
        ("http://localhost:12000", "http://localhost:12000"),
        ("localhost:12000/", "localhost:12000/"),
        ("postgresql://a:s3c/ret@h/d", "postgresql://\u2026"),
        ("postgresql://a:12/SECRET@h/d", "postgresql://\u2026"),
        ("host=h password=secret", "\u2026"),
    ],
)
def test_parts_of_a_url_that_are_not_secret_are_shown(url: str, shown: str) -> None:
    assert show_url(url) == shown


@pytest.mark.parametrize("url", ["postgresql://a:s3c/ret@h/d", "http://a:b@c@h", "http://a:50%@h/", "http://h/%00", ""])
def test_a_url_with_several_readings_is_refused(url: str) -> None:
    if url:
        with pytest.raises(SettingsError, match="percent-encoded"):
            check_url(url, "URL")
