"""``eventstore up`` prints the URL, serves HTTP until it is stopped, and stops at once."""

from __future__ import annotations

import json
import re
import socket
import ssl
import subprocess
import time
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from support.certificates import self_signed
from support.processes import Commands, Running
from support.servers import open_folder
from support.waiting import SECONDS, until

from eventstore import __version__

SECONDS_TO_STOP = 10


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def address(up: Running) -> str:
    """The address that it says."""
    up.until_printed("Ctrl-C")
    found = re.search(r"^HTTP +(http://[^;]+);", up.out, re.MULTILINE)
    assert found is not None, up.out
    return found[1]


def metrics_address(running: Running) -> str:
    """The address of its metrics."""
    found = re.search(r"^Metrics +(http://\S+/metrics)$", running.out, re.MULTILINE)
    assert found is not None, running.out
    return found[1]


def test_up_serves_http_and_metrics_and_prints_the_urls(started: Commands, database_url: str) -> None:
    up = started.start("up", "--port", "0", "--metrics-port", "0", DATABASE_URL=database_url)
    url = address(up)
    assert url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{url}/ready", timeout=SECONDS).json()["status"] == "ready"
    made = httpx.post(f"{url}/conversation/create", timeout=SECONDS).json()["result"]
    assert httpx.get(f"{url}/v1/conversations", timeout=SECONDS).json()["items"][0]["id"] == made["conversation_id"]
    metrics_url = metrics_address(up)
    metrics = httpx.get(metrics_url, timeout=SECONDS).text
    assert 'eventstore_http_responses_total{method="POST",route="/conversation/create",status="200"} 1.0' in metrics
    assert "eventstore_append_seconds_count 1.0" in metrics
    assert httpx.get(metrics_url.replace("/metrics", "/ready"), timeout=SECONDS).json() == {"status": "ready"}
    assert up.interrupt() == 0
    assert up.warnings == []


@pytest.mark.slow
def test_a_worker_alone_serves_metrics_also_while_its_server_is_away(started: Commands, free_port: int) -> None:
    url = f"postgresql://nobody@127.0.0.1:{free_port}/none"
    worker = started.start("project", "--metrics-port", "0", DATABASE_URL=url)
    worker.until_printed("Metrics")
    metrics_url = metrics_address(worker)
    assert "eventstore_database_up 0.0" in httpx.get(metrics_url, timeout=SECONDS).text
    assert httpx.get(metrics_url.replace("/metrics", "/health"), timeout=SECONDS).json() == {"status": "ok"}
    assert httpx.get(metrics_url.replace("/metrics", "/ready"), timeout=SECONDS).status_code == 503
    assert worker.interrupt() == 0


@pytest.mark.slow
def test_a_metrics_port_that_is_in_use_is_named(started: Commands, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        up = started.start("up", "--port", "0", DATABASE_URL=database_url, EVENTSTORE_METRICS_PORT=port)
        assert up.wait() == 1
    assert f"--metrics-host 127.0.0.1 --metrics-port {port}: Address already in use: choose another" in up.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 15], ids=["Ctrl-C", "SIGTERM"])
def test_open_streams_do_not_delay_the_shutdown(started: Commands, database_url: str, number: int) -> None:
    up = started.start("up", "--port", "0", DATABASE_URL=database_url)
    url = address(up)
    with (
        httpx.stream("GET", f"{url}/v1/log/stream?after=0", timeout=SECONDS) as one,
        httpx.stream("GET", f"{url}/v1/log/stream", timeout=SECONDS) as other,
    ):
        lines = one.iter_lines()
        assert next(lines).startswith("retry:")
        began = time.monotonic()
        assert up.interrupt(number) == 0
        assert time.monotonic() - began < SECONDS_TO_STOP
        list(lines)
        list(other.iter_lines())
    assert up.warnings == []


@pytest.mark.parametrize("number", [2, 15], ids=["Ctrl-C", "SIGTERM"])
def test_up_stops_while_it_waits_for_the_migrations_of_another_process(
    started: Commands, empty_database_url: str, number: int
) -> None:
    key = int.from_bytes(sha256(b"eventstore migrations public").digest()[:8], signed=True)
    with psycopg.connect(empty_database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (key,))
        up = started.start("up", "--port", "0", DATABASE_URL=empty_database_url)
        waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_try_advisory%'"
        until(lambda: other.execute(waits + " AND pid <> pg_backend_pid()").fetchone() is not None, "it waits")
        assert up.interrupt(number, SECONDS_TO_STOP) == 0
        assert other.execute("SELECT to_regclass('public.events')").fetchone() == (None,)


@pytest.mark.slow
def test_no_http_is_served_with_no_http(started: Commands, database_url: str) -> None:
    up = started.start("up", "--no-http", DATABASE_URL=database_url)
    up.until_printed("Ctrl-C")
    assert "HTTP" not in up.out
    assert up.interrupt() == 0


@pytest.mark.slow
def test_the_password_of_the_embedded_server_is_not_printed(started: Commands, free_port: int) -> None:
    with open_folder() as folder:
        data_dir = folder / "its data"
        up = started.start("up", "--no-http", "--data-dir", str(data_dir), "--pg-port", str(free_port))
        up.until_printed("Ctrl-C")
        password = (data_dir / "password").read_text().strip()
        assert password not in up.out + up.err
        suggested = re.search(r"^ *(PGPASSWORD=.*)$", up.out, re.MULTILINE)
        assert suggested is not None, up.out
        asked = f"{suggested[1]} -Atc 'SELECT current_user'"
        done = subprocess.run(asked, shell=True, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "eventstore"
        assert up.interrupt() == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["up", "project"])
def test_a_superuser_is_rejected_unless_allowed(started: Commands, superuser_url: str, command: str) -> None:
    refused = started.start(command, DATABASE_URL=superuser_url)
    assert refused.wait() == 1
    assert "row-level security does not hold for it: connect as a login" in refused.err
    options = ("--port", "0") if command == "up" else ()
    allowed = started.start(command, "--allow-superuser", *options, DATABASE_URL=superuser_url)
    allowed.until_printed("Ctrl-C")
    assert "warning: the login postgres is a superuser" in allowed.err
    assert allowed.interrupt() == 0


@pytest.mark.slow
def test_a_port_in_use_is_an_error_unless_it_is_the_default(started: Commands, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = started.start("up", "--port", str(port), DATABASE_URL=database_url)
        assert refused.wait() == 1
        assert f"--port {port}: Address already in use: choose another" in refused.err
    ups = [started.start("up", DATABASE_URL=database_url) for _ in range(2)]
    assert len({address(up) for up in ups}) == 2
    for up in ups:
        up.until_printed("Ctrl-C")
        assert ("not on port 8080, which is in use" in up.out) != address(up).endswith(":8080")
    for up in ups:
        assert up.interrupt() == 0


@pytest.mark.slow
def test_the_echo_agent_answers_and_pending_messages_are_mentioned(started: Commands, database_url: str) -> None:
    """A server without an agent that is killed leaves a message waiting where its agent stalls."""
    Path("stalls.py").write_text("import asyncio\n\n\nasync def answer(message):\n    await asyncio.sleep(3600)\n")
    up = started.start("up", "--port", "0", DATABASE_URL=database_url, EVENTSTORE_ANSWER="stalls:answer")
    message = {"messageId": "m1", "contextId": "trip", "role": "user", "parts": [{"kind": "text", "text": "olá"}]}
    url = address(up)
    assert "stalls:answer" in up.out
    assert httpx.post(f"{url}/message/send", json={"params": message}, timeout=SECONDS).status_code == 200
    assert httpx.post(f"{url}/message/pending", timeout=SECONDS).json()["result"] == [["m1", ""]]
    up.kill()

    again = started.start("up", "--port", "0", DATABASE_URL=database_url, EVENTSTORE_ANSWER="echo")
    url = address(again)
    assert "1 message(s) await an answer" in again.out
    httpx.post(f"{url}/message/send", json={"params": message | {"messageId": "m2"}}, timeout=SECONDS)

    def replies() -> list[Any]:
        messages = httpx.post(f"{url}/message/list", json={"params": "trip"}, timeout=SECONDS).json()["result"]
        return [each for each in messages if each["role"] == "agent"]

    until(replies, "the echo answered")
    assert replies()[0]["parts"] == message["parts"]
    assert again.interrupt() == 0


@pytest.mark.slow
def test_an_unknown_agent_is_reported_at_the_start(started: Commands, database_url: str) -> None:
    refused = started.start("up", DATABASE_URL=database_url, EVENTSTORE_ANSWER="nobody.there:answer")
    assert refused.wait() == 1
    assert "nobody.there" in refused.err
    assert "Traceback" not in refused.err


def key_of(started: Commands, database_url: str, *options: str) -> str:
    """A new key, as the command shows it once."""
    for command in (("tenants", "add", "acme"), ("users", "add", "ana", "--tenant", "acme")):
        assert started.start(*command, DATABASE_URL=database_url).wait() == 0
    made = started.start(
        "keys", "add", "tests", "--tenant", "acme", "--user", "ana", "--json", *options, DATABASE_URL=database_url
    )
    assert made.wait() == 0, made.err
    return str(json.loads(made.out)["token"])


@pytest.mark.slow
def test_on_all_addresses_tokens_are_required(started: Commands, database_url: str) -> None:
    up = started.start("up", "--host", "0.0.0.0", "--port", "0", DATABASE_URL=database_url)
    url = address(up).replace("0.0.0.0", "127.0.0.1")
    assert "required: eventstore keys add NAME creates one" in up.out
    assert "sent unencrypted" in up.out
    assert httpx.get(f"{url}/v1/conversations", timeout=SECONDS).status_code == 401
    token = key_of(started, database_url)
    headers = {"Authorization": f"Bearer {token}"}
    made = httpx.post(f"{url}/v1/conversations", json={"id": "trip"}, headers=headers, timeout=SECONDS)
    assert made.status_code == 201, made.text
    assert (
        httpx.get(f"{url}/v1/conversations/trip/members", headers=headers, timeout=SECONDS).json()["items"][0]["user"]
        == "ana"
    )
    assert up.interrupt() == 0
    assert token not in up.out + up.err


@pytest.mark.slow
def test_on_the_loopback_interface_tokens_can_be_required(started: Commands, database_url: str) -> None:
    up = started.start("up", "--port", "0", "--require-tokens", DATABASE_URL=database_url)
    url = address(up)
    assert httpx.get(f"{url}/v1/conversations", timeout=SECONDS).status_code == 401
    assert up.interrupt() == 0
    up = started.start("up", "--port", "0", DATABASE_URL=database_url)
    url = address(up)
    assert "every user of this machine may read and write" in up.out
    assert httpx.get(f"{url}/v1/conversations", timeout=SECONDS).status_code == 200
    assert up.interrupt() == 0


@pytest.mark.slow
def test_an_address_that_cannot_be_bound_is_reported_with_its_options(started: Commands, database_url: str) -> None:
    refused = started.start("up", "--host", "192.0.2.1", DATABASE_URL=database_url)
    assert refused.wait() == 1
    assert "--host 192.0.2.1 --port 8080: Cannot assign requested address" in refused.err


@pytest.mark.slow
def test_the_accepted_jwt_are_described(started: Commands, database_url: str) -> None:
    secret = "0123456789abcdef" * 2
    up = started.start("up", "--port", "0", DATABASE_URL=database_url, EVENTSTORE_JWT_KEY=secret)
    up.until_printed("Ctrl-C")
    assert re.search(r"^JWT +accepted as tokens: of any issuer, for no audience$", up.out, re.MULTILINE)
    assert secret not in up.out + up.err
    assert up.interrupt() == 0


@pytest.mark.slow
def test_https_is_served_with_a_certificate(started: Commands, database_url: str) -> None:
    certificate, key = self_signed(Path())
    up = started.start(
        "up", "--port", "0", "--tls-cert", str(certificate), "--tls-key", str(key), DATABASE_URL=database_url
    )
    up.until_printed("Ctrl-C")
    url = re.findall(r"^HTTP +(https://[^;]+);", up.out, re.MULTILINE)[0]
    answer = httpx.get(f"{url}/health", verify=ssl.create_default_context(cafile=str(certificate)), timeout=SECONDS)
    assert answer.json() == {"status": "ok", "version": __version__}
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is old is what is tried
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health", verify=old, timeout=SECONDS)
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{url.replace('https', 'http')}/health", timeout=SECONDS)
    assert up.interrupt() == 0


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["no key", "no file", "another key", "no certificate"])
def test_an_unusable_certificate_is_reported_at_the_start(started: Commands, database_url: str, wrong: str) -> None:
    certificate, key = self_signed(Path())
    (folder := Path("other")).mkdir()
    _, other = self_signed(folder)
    options = {
        "no key": ["--tls-cert", str(certificate)],
        "no file": ["--tls-cert", "nowhere.pem", "--tls-key", str(key)],
        "another key": ["--tls-cert", str(certificate), "--tls-key", str(other)],
        "no certificate": ["--tls-key", str(key)],
    }[wrong]
    refused = started.start("up", *options, DATABASE_URL=database_url)
    assert refused.wait() == 1
    assert "--tls-" in refused.err
    assert "Traceback" not in refused.err
