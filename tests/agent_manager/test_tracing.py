"""Traces: a request, its append and the batches of projections that apply it, from the command and from Python."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.environment import child_environment, clear_settings
from support.processes import Commands
from support.servers import DatabaseServer
from support.waiting import SECONDS, until

from agent_manager.trace_export import exporters, exporting_traces
from eventstore import conversation_uuid
from eventstore.errors import SettingsError
from projections import PROJECTIONS

HIDDEN = "S3cret"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """A server that collects the spans that are exported to it, by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.raw = b""

    def take(self, body: bytes) -> None:
        """Take an export."""
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {attributes(resource.resource)["service.name"]}
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        """Return the spans of a name."""
        return [span for span in list(self.spans) if span.name == name]


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """A collector, and its address."""
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collected.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield collected, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def test_a_request_is_followed_to_the_projections(
    started: Commands, database_url: str, collector: tuple[Collector, str]
) -> None:
    collected, endpoint = collector
    up = started.start(
        "up", "--port", "0", "--log-format", "json", DATABASE_URL=database_url,
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="50",
    )  # fmt: skip
    up.until_printed("Ctrl-C")
    url = re.findall(r"^HTTP +(http://[^;]+);", up.out, re.MULTILINE)[0]
    given = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    httpx.post(f"{url}/v1/conversations", json={"id": HIDDEN, "name": HIDDEN}, timeout=SECONDS)
    message = {"role": "user", "content": HIDDEN}
    made = httpx.post(f"{url}/v1/conversations/{HIDDEN}/messages", json=message, headers=given, timeout=SECONDS)
    assert made.status_code == 201
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    httpx.post(f"{url}/v1/conversations/{HIDDEN}/messages", json=message, headers=unsampled, timeout=SECONDS)
    httpx.get(f"{url}/{HIDDEN}", headers=unsampled | {"traceparent": "not valid"}, timeout=SECONDS)

    name = "POST /v1/conversations/{conversation}/messages"
    [request] = until(lambda: collected.named(name), "the request is exported")
    conversation = str(conversation_uuid("default", HIDDEN))
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(request) == {
        "http.request.method": "POST", "url.scheme": "http", "http.route": name.partition(" ")[2],
        "http.response.status_code": 201, "gen_ai.conversation.id": conversation,
    }  # fmt: skip
    [append] = [span for span in collected.named("eventstore append") if span.parent_span_id == request.span_id]
    assert (append.trace_id, attributes(append)["gen_ai.conversation.id"]) == (request.trace_id, conversation)

    def links() -> set[tuple[bytes, bytes]]:
        return {(link.trace_id, link.span_id) for span in collected.named("eventstore project") for link in span.links}

    until(lambda: (append.trace_id, append.span_id) in links(), "a batch is linked to the append")
    batches = [
        span for span in collected.named("eventstore project") if append.span_id in {x.span_id for x in span.links}
    ]
    assert {attributes(span)["gen_ai.conversation.id"] for span in batches} == {conversation}
    assert {len(span.parent_span_id) for span in batches} == {0}
    stored = httpx.get(f"{url}/v1/conversations/{HIDDEN}/events", timeout=SECONDS).json()["items"]
    contexts = [event["metadata"].get("traceparent") for event in stored]
    assert contexts[1:] == [f"00-{TRACE}-{append.span_id.hex()}-01", None]
    assert up.interrupt() == 0
    logged = [json.loads(line) for line in up.err.splitlines()]
    [line] = [line for line in logged if line.get("span_id") == request.span_id.hex() and line["event"] == "request"]
    assert line["trace_id"] == TRACE
    assert collected.services == {"eventstore"}
    assert HIDDEN.encode() not in collected.raw


# Applications with traces of their own

APPLICATION = """
import asyncio, json, sys
from contextlib import suppress
from dataclasses import replace
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from eventstore import EventStore, MessageAdded, Metadata, NewEvent, Settings, conversation_uuid
from eventstore.errors import WrongExpectedVersion
from projections import PROJECTIONS, Worker
from projections.inline import InlineAppender

memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("application")


def linked():
    return {
        (projection, link.context.span_id)
        for span in memory.get_finished_spans() if span.name == "eventstore project"
        for projection in span.attributes["eventstore.projections"] for link in span.links
    }


def message(text="x", **metadata):
    return NewEvent(MessageAdded(role="user", content=text), metadata=Metadata(**metadata))


async def main():
    async with EventStore(Settings(max_content_bytes=1024)) as store:
        worker = asyncio.create_task(Worker(store).run())
        names = ("plain", "traced", "own", "limit", "inline", "large")
        ids = {name: conversation_uuid(store.tenant, name) for name in names}
        spans, repeated = {}, message()
        await store.append(ids["plain"], [message()])
        for name in ("traced", "again"):
            with tracer.start_as_current_span(name) as span:
                spans[name] = format(span.get_span_context().trace_id, "032x")
                is_new = (await store.append(ids["traced"], [repeated])).events[0].is_new
        with tracer.start_as_current_span("others"):
            await store.append(ids["own"], [message(traceparent="its own"), message(note=[1])])
            await store.append(ids["limit"], [message(note="n" * (1024 - len('{"note": ""}')))])
            with suppress(WrongExpectedVersion):
                await store.append(ids["plain"], [message("secret")], expected=7)
            await store.append(ids["large"], [message() for _ in range(300)])
            async with InlineAppender(store, ()) as inline:
                await inline.append(ids["inline"], [message()])
        await store.append(ids["plain"], [message()])
        stored = {name: [event.raw_metadata async for event in store.read(ids[name])] for name in names}
        while len(linked()) < 5 * len(PROJECTIONS):
            await asyncio.sleep(0.02)
        worker.cancel()
    provider.force_flush()
    print(json.dumps({
        "is_new": is_new, "traces": spans, "stored": stored, "ids": {name: str(ids[name]) for name in ids},
        "spans": [json.loads(span.to_json()) for span in memory.get_finished_spans()],
    }))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def application(server: DatabaseServer, module_database: str) -> dict[str, Any]:
    """The events and spans of an application with traces, in a separate process: a provider is set once."""
    with pytest.MonkeyPatch.context() as patch:
        clear_settings(patch)
        environment = child_environment(DATABASE_URL=server.url(module_database))
        done = subprocess.run(
            [sys.executable, "-c", APPLICATION],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def spans_of(application: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [span for span in application["spans"] if span["name"] == name]


def test_an_append_without_a_current_span_is_not_traced(application: dict[str, Any]) -> None:
    assert application["stored"]["plain"] == [{}, {}]


def test_a_repeated_append_is_the_same_in_another_trace(application: dict[str, Any]) -> None:
    assert not application["is_new"]
    [metadata] = application["stored"]["traced"]
    assert metadata["traceparent"].split("-")[1] == application["traces"]["traced"]


def test_a_trace_context_of_the_application_is_kept(application: dict[str, Any]) -> None:
    own, traced = application["stored"]["own"]
    assert own == {"traceparent": "its own"}
    assert traced["note"] == [1]
    assert traced["traceparent"].startswith("00-")


def test_a_trace_context_does_not_count_towards_the_limit(application: dict[str, Any]) -> None:
    [metadata] = application["stored"]["limit"]
    assert "traceparent" in metadata


def test_inline_appends_are_traced(application: dict[str, Any]) -> None:
    [metadata] = application["stored"]["inline"]
    assert "traceparent" in metadata


def test_a_failed_append_has_the_type_of_its_error(application: dict[str, Any]) -> None:
    [failed] = [span for span in spans_of(application, "eventstore append") if "error.type" in span["attributes"]]
    assert failed["attributes"]["error.type"] == "WrongExpectedVersion"
    assert (failed["status"]["status_code"], failed["events"]) == ("ERROR", [])
    assert "secret" not in json.dumps(application["spans"])


def test_every_traced_append_has_a_link_in_each_projection(application: dict[str, Any]) -> None:
    """One link for each append, however many events it has."""
    batches = spans_of(application, "eventstore project")
    own = [span["context"]["span_id"] for span in spans_of(application, "eventstore append")]
    linked: dict[str, set[str]] = {}
    for batch in batches:
        assert batch["parent_id"] is None
        for projection in batch["attributes"]["eventstore.projections"]:
            linked.setdefault(projection, set()).update(link["context"]["span_id"] for link in batch["links"])
    stored = {
        metadata["traceparent"].split("-")[2]
        for events in application["stored"].values()
        for metadata in events
        if metadata.get("traceparent", "").startswith("00-")
    }
    assert len(stored) == 5
    assert {f"0x{span}" for span in stored} <= set(own)
    assert set(linked) == {projection.name for projection in PROJECTIONS}
    assert all({f"0x{span}" for span in stored} <= spans for spans in linked.values())


# The environment


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set variables of OpenTelemetry; all others are unset."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
    ],
)
def test_the_environment_selects_the_exporters(
    environment: Callable[..., None], variables: dict[str, str], names: list[str]
) -> None:
    environment(**variables)
    assert exporters() == names


def test_an_unknown_exporter_is_refused(environment: Callable[..., None]) -> None:
    environment(OTEL_TRACES_EXPORTER="carrier pigeon")
    text = "no package has the exporter carrier pigeon: install it, or choose among"
    with pytest.raises(SettingsError, match=text), exporting_traces():
        pass


def test_traces_without_the_extra_are_a_warning(
    environment: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://x")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with caplog.at_level(logging.WARNING, "agent_manager"), exporting_traces():
        assert "pip install 'flowagents-eventstore[otel]'" in caplog.text


@pytest.mark.slow
def test_nothing_of_the_sdk_is_imported_unless_it_is_configured(clean_environment: None) -> None:
    script = (
        "import sys, agent_manager.cli.up; from agent_manager.trace_export import exporting_traces\n"
        "with exporting_traces(): print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=child_environment(), check=True
    )
    assert done.stdout.strip() == "[]"
