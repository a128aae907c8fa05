"""Agents receive the credentials of their own origin, over every transport, and nobody else receives or sees them."""

from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from support.a2a_server import serving
from support.certificates import self_signed
from support.official_agent import official_agent

from agent_manager.agents.agent import Context
from agent_manager.agents.agent_spec import agent_from_settings
from agent_manager.agents.cards import fetch_card
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.agents.remote import remote
from agent_manager.errors import AgentError, AgentRefused, AgentUnreachable
from eventstore import Settings
from eventstore.errors import SettingsError

pytest.importorskip("a2a", reason="a2a-sdk is not installed")
pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = [
    pytest.mark.any_server,
    pytest.mark.skipif(metadata.version("a2a-sdk").startswith("0."), reason="the agents are made with a2a-sdk 1.x"),
]

SECRET = "s3cr3t-0123456789"
MESSAGE = {"role": "user", "content": "hello"}
HEADERS = 'headers = { X-Api-Key = { file = "key" }, X-Team = "travel", User-Agent = "ours" }\n'


def written(folder: Path, url: str, *lines: str) -> AgentCredentials:
    """The credentials in a new settings file, with a token in a file of its own."""
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "key").write_text(f"key-{SECRET}\n")
    file = folder / "credentials.toml"
    file.write_text(f'[[agents]]\nurl = "{url}"\n' + "".join(lines))
    return AgentCredentials.load(file)


TOKEN = 'bearer_token = { file = "token" }\n'


async def heard(agent: Any, credentials: AgentCredentials, **options: Any) -> int:
    answer = remote(agent, credentials=credentials, **options)
    return len([update async for update in answer(MESSAGE, Context())])


@pytest.mark.parametrize("transport", ["JSONRPC", "HTTP+JSON", "GRPC"])
@pytest.mark.parametrize("version", ["0.3", "1.0"])
@pytest.mark.parametrize("allow_private", [True, False])
async def test_every_request_has_the_token_and_headers(
    tmp_path: Path, version: str, transport: str, allow_private: bool
) -> None:
    with official_agent(version=version, transport=transport) as (url, recorded):
        card = await fetch_card(url)
        interface = card.get("url") or card["supportedInterfaces"][0]["url"]
        written(tmp_path, url, TOKEN, HEADERS)
        file = tmp_path / "credentials.toml"
        if transport == "GRPC":  # another port than that of the card
            file.write_text(file.read_text() + file.read_text().replace(url, f"http://{interface}"))
        recorded.headers.clear()
        assert await heard(url, AgentCredentials.load(file), allow_private=allow_private) == 1
        assert len(recorded.headers) == 2
        for headers in recorded.headers:
            assert headers["authorization"] == f"Bearer {SECRET}"
            assert headers["x-api-key"] == f"key-{SECRET}"
            assert headers["x-team"] == "travel"
            assert headers["user-agent"] == "ours" or transport == "GRPC"  # which sends its own


async def test_a_renewed_token_is_used_at_once(tmp_path: Path) -> None:
    with official_agent() as (url, recorded):
        agent = remote(url, credentials=written(tmp_path, url, TOKEN))
        assert [update async for update in agent(MESSAGE, Context())]
        (tmp_path / "token").write_text("renewed")
        assert [update async for update in agent(MESSAGE, Context())]
        assert recorded.headers[-1]["authorization"] == "Bearer renewed"
        (tmp_path / "token").unlink()
        with pytest.raises(SettingsError, match="token: No such file"):
            assert [update async for update in agent(MESSAGE, Context())]


async def test_the_card_of_an_agent_is_fetched_with_its_credentials(tmp_path: Path) -> None:
    with official_agent() as (url, recorded):
        await fetch_card(url, credentials=written(tmp_path, url, TOKEN))
        assert recorded.headers[-1]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("where", ["http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://localhost:{port}"])
async def test_another_port_scheme_or_host_receives_nothing(tmp_path: Path, where: str) -> None:
    with official_agent() as (url, recorded):
        port = url.rpartition(":")[2]
        assert await heard(url, written(tmp_path, where.format(port=port), TOKEN, HEADERS)) == 1
        assert not any({"authorization", "x-api-key", "x-team"} & headers.keys() for headers in recorded.headers)


async def test_only_agents_below_the_url_receive_its_credentials_and_the_longest_url_decides(tmp_path: Path) -> None:
    written(tmp_path, "http://127.0.0.1:1/a", 'bearer_token = "one"\n')
    file = tmp_path / "credentials.toml"
    file.write_text(file.read_text() + '[[agents]]\nurl = "http://127.0.0.1:1/a/b/"\nbearer_token = "two"\n')
    credentials = AgentCredentials.load(file)
    found = {
        path: entry and entry.current_headers()["authorization"]
        for path in ("", "/ab", "/a", "/a/", "/a/c", "/a/b", "/a/b/agent.json")
        for entry in [credentials.find(f"http://127.0.0.1:1{path}")]
    }
    assert found == {
        "": None, "/ab": None, "/a": "Bearer one", "/a/": "Bearer one", "/a/c": "Bearer one",
        "/a/b": "Bearer two", "/a/b/agent.json": "Bearer two",
    }  # fmt: skip


@contextmanager
def redirecting(to: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that redirects every request; gives its URL and the headers that it received."""
    app, received = FastAPI(), []

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def redirect(path: str, request: Request) -> RedirectResponse:
        received.append(dict(request.headers))
        return RedirectResponse(f"{to}/{path}", 307)

    with serving(app) as url:
        yield url, received


async def test_a_redirect_to_another_origin_carries_no_credentials(tmp_path: Path) -> None:
    with official_agent() as (url, recorded), redirecting(url) as (from_url, received):
        credentials = written(tmp_path, from_url, TOKEN, HEADERS)
        assert await heard(from_url, credentials) == 1
        assert [headers["authorization"] for headers in received] == [f"Bearer {SECRET}"]
        assert recorded.headers
        assert SECRET not in str(recorded.headers)
        assert "x-team" not in str(recorded.headers)
        card = await fetch_card(url) | {"supportedInterfaces": []} | {"url": from_url}
        assert await heard(card, credentials) == 1  # also that of a message
        assert len(received) == 2
        assert SECRET not in str(recorded.headers)


async def test_an_interface_on_another_origin_receives_nothing_without_an_entry(tmp_path: Path) -> None:
    with official_agent(transport="GRPC") as (url, recorded):
        assert await heard(url, written(tmp_path, url, TOKEN, HEADERS)) == 1
        assert SECRET in str(recorded.headers[0])
        assert SECRET not in str(recorded.headers[1])


def tls_server(folder: Path, *, client: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    if client is not None:
        context.load_verify_locations(client)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a server's and of a client's certificate."""
    folders = tmp_path / "server", tmp_path / "client"
    for folder in folders:
        folder.mkdir()
        self_signed(folder)
    return folders


CERTIFICATES = 'client_certificate = "client/certificate.pem"\nclient_key = "client/key.pem"\n'
CA = 'ca = "server/certificate.pem"\n'


@pytest.mark.parametrize("allow_private", [True, False])
async def test_a_custom_ca_and_a_client_certificate_are_used(
    tmp_path: Path, certificates: tuple[Path, Path], allow_private: bool
) -> None:
    server, client = certificates
    tls = tls_server(server, client=client / "certificate.pem")
    with official_agent(tls=tls) as (url, recorded):
        both = written(tmp_path, url, TOKEN, CA, CERTIFICATES)
        assert await heard(url, both, allow_private=allow_private) == 1
        assert recorded.headers[-1]["authorization"] == f"Bearer {SECRET}"
        for lines in ([CA], [CERTIFICATES], []):
            with pytest.raises((AgentUnreachable, AgentError)):
                await heard(url, written(tmp_path, url, *lines), allow_private=allow_private)


async def test_grpc_uses_the_ca_and_the_client_certificate(tmp_path: Path, certificates: tuple[Path, Path]) -> None:
    server, client = certificates
    files = server / "certificate.pem", server / "key.pem", client / "certificate.pem"
    with official_agent(transport="GRPC", grpc_certificate=files) as (url, recorded):
        interface = (await fetch_card(url))["supportedInterfaces"][0]["url"]
        assert await heard(url, written(tmp_path, interface, TOKEN, CA, CERTIFICATES)) == 1
        assert recorded.headers[-1]["authorization"] == f"Bearer {SECRET}"
        for lines in ([CA], [CERTIFICATES], []):
            with pytest.raises(AgentError):
                await heard(url, written(tmp_path, interface, *lines))


async def test_no_secret_is_in_errors_and_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with official_agent() as (url, _):
        credentials = written(tmp_path, url, TOKEN, 'headers = { X-Api-Key = "s3cr3t-0123456789" }\n')
        assert await heard(url, credentials) == 1
        agent = remote(url, credentials=credentials)
        with pytest.raises(AgentRefused) as error:
            await anext(agent.resume("unknown", Context()))
    shown = [repr(agent), repr(vars(agent)), repr(credentials.find(url)), str(credentials.find(url))]
    # The agent runs in this process, too, and logs what it receives.
    shown += [record.getMessage() for record in caplog.records if not record.name.startswith("a2a.server")]
    shown += traceback.format_exception(error.value)
    assert not [text for text in shown if SECRET in text]


WRONG = {
    "no file": (None, "No such file"),
    "not TOML": ("agents = [", "is not TOML"),
    "no agents": ("", "agents: Field required"),
    "no url": ("[[agents]]", r"agents\.0\.url: Field required"),
    "not a url": ('[[agents]]\nurl = "agent"', r"agents\.0\.url: expected https://host"),
    "a user": ('[[agents]]\nurl = "https://me:s3cr3t-0123456789@h"', r"agents\.0\.url: expected https://host"),
    "misspelt": ('[[agents]]\nurl = "https://h"\ntoken = "s3cr3t-0123456789"', r"agents\.0\.token: Extra inputs"),
    "plain http": ('[[agents]]\nurl = "http://h"\nbearer_token = "s3cr3t-0123456789"', "allow_plain_http"),
    "no secret": ('[[agents]]\nurl = "https://h"\nbearer_token = { file = "absent" }', r"bearer_token: .*/absent: No"),
    "lines": ('[[agents]]\nurl = "https://h"\nbearer_token = "s3cr3t-0123456789\\nX: y"', "several lines"),
    "a header's name": (
        '[[agents]]\nurl = "https://h"\nheaders = { "a b" = "c" }',
        "'a b' is not the name of a header",
    ),
    "Host": ('[[agents]]\nurl = "https://h"\nheaders = { Host = "c" }', "'Host' is not the name of a header"),
    "no certificate": (
        '[[agents]]\nurl = "https://h"\nclient_certificate = "absent.pem"',
        r"absent\.pem: No such file",
    ),
    "no CA": ('[[agents]]\nurl = "https://h"\nca = "credentials.toml"', r"credentials\.toml: .*PEM"),
    "a key alone": ('[[agents]]\nurl = "https://h"\nclient_key = "k"', "without client_certificate"),
}


@pytest.mark.parametrize(("text", "problem"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_an_error_at_the_start_that_names_it(tmp_path: Path, text: str | None, problem: str) -> None:
    file = tmp_path / "credentials.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match=problem) as error:
        agent_from_settings(Settings(answer="https://h", agent_credentials=file))
    assert str(error.value).startswith("EVENTSTORE_AGENT_CREDENTIALS: ")
    assert str(file) in str(error.value) or "https://h" in str(error.value)
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_plain_http_is_allowed_on_this_machine_and_if_the_entry_says_so(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1", "http://[::1]:8080", "http://localhost:1"):
        assert written(tmp_path, url, TOKEN).find(url)
    assert written(tmp_path, "http://agent:9000", TOKEN, "allow_plain_http = true\n").find("http://agent:9000/")
