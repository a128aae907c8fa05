"""The command up."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from agent_manager.agents.factory import choose
from agent_manager.cli.options import AllowSuperuser, DataDir, PgPort, read_settings
from agent_manager.cli.project import say, work
from agent_manager.factory import AsyncManager
from agent_manager.server.context import OWN_FOLD_BYTES
from agent_manager.server.serve import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    is_own,
    listen,
    may_fetch_private,
    serving,
    tls_context,
    url_of,
)
from eventstore import EventStore, Settings
from eventstore.errors import SettingsError
from eventstore.urls import show_name, show_url
from projections import Projection


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(up)


def up(
    data_dir: DataDir = None,
    pg_port: PgPort = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to serve HTTP; 0.0.0.0 is every address of this machine.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help=f"The port; 0 is any free one. {DEFAULT_PORT}, or any free one where that is taken.",
            show_default=False,
        ),
    ] = None,
    no_http: Annotated[bool, typer.Option("--no-http", help="Serve no HTTP.")] = False,
    require_tokens: Annotated[
        bool,
        typer.Option(
            "--require-tokens",
            help="Let nobody in without a token, not even this machine's own; so behind a proxy. "
            "On every other address than this machine's own it is so anyway.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", help="Speak TLS with the certificate in this PEM file.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", help="Its key, if that is in a PEM file of its own.", show_default=False),
    ] = None,
    allow_superuser: AllowSuperuser = False,
) -> None:
    """Start everything: server, schema, workers, HTTP. Ctrl-C stops it.

    Without a named server it starts the embedded PostgreSQL, or joins the one that another process started; the last
    to leave stops it. Then it applies the migrations that are missing, runs the workers that keep the read tables
    up with the log, and serves the HTTP API: the endpoints of the A2A demo application, and a REST API under /v1,
    which /openapi.json describes. Who asks says so by a token (eventstore keys add, or a JWT); only where it listens on
    this machine alone, as it does unless told otherwise, nobody needs one.
    """
    settings = read_settings(data_dir, pg_port=pg_port, allow_superuser=allow_superuser)
    if tls_key is not None and tls_cert is None:
        raise SettingsError("--tls-key: its certificate is missing: give --tls-cert too")
    tls = None if tls_cert is None else tls_context(tls_cert, tls_key)
    if settings.answer:
        choose(settings.answer)  # what it names is found now, or never
    listening = None if no_http else listen(host, port)
    try:
        http = (
            None
            if listening is None
            else partial(_http, listening=listening, port=port, requires_tokens=require_tokens, tls=tls)
        )
        asyncio.run(work(settings, _describe, http))
    finally:
        if listening is not None:
            listening.close()


@asynccontextmanager
async def _http(
    store: EventStore, *, listening: socket.socket, port: int | None, requires_tokens: bool, tls: ssl.SSLContext | None
) -> AsyncIterator[None]:
    """Serves HTTP until the end of the block."""
    said = store.settings.answer
    answer = choose(said, allow_private=may_fetch_private(store.settings, listening)) if said else None
    async with (
        AsyncManager(store, answer=answer, runs_worker=False, fold_bytes=OWN_FOLD_BYTES) as manager,
        serving(store, manager, listening, requires_tokens=requires_tokens, tls=tls) as server_context,
    ):
        url = url_of(listening, has_tls=tls is not None)
        say("HTTP", f"{url}; GET {url}/openapi.json describes it")
        if port is None and listening.getsockname()[1] != DEFAULT_PORT:
            say("", f"not on port {DEFAULT_PORT}, where somebody else listens: --port chooses another")
        if server_context.gate.requires_tokens:
            say("Tokens", "nobody is let in without one: eventstore keys add makes them")
            if tls is None and not is_own(listening):
                say("", "they travel in the clear: --tls-cert, or a proxy that speaks TLS, keeps them secret")
            if not is_own(listening):
                say("Proxy", "put one in front that bounds the connections of each address: deploy/nginx.conf is one")
        else:
            say(
                "Tokens", "none is needed: whoever is on this machine may read and write; --require-tokens changes that"
            )
        settings = store.settings
        if settings.jwt_key or settings.jwt_jwks:
            issuer, audience = settings.jwt_issuer or "any issuer", settings.jwt_audience or "no audience"
            say("JWT", f"are tokens too: of {issuer}, for {audience}")
        say("Answers", show_name(said) if said else "nobody answers messages: EVENTSTORE_ANSWER names who is to")
        if pending := await manager.pending():
            oldest = min(each.since for each in pending).astimezone().strftime("%Y-%m-%d %H:%M:%S")
            say("Pending", f"{len(pending)} message(s) wait for an answer, since {oldest}: eventstore pending")
        yield


def _describe(store: EventStore, projections: Sequence[Projection]) -> None:
    embedded = store.server.embedded
    settings = store.settings
    if embedded is None:
        say("PostgreSQL", store.server.public_url)
        if settings.pg_port is not None:
            say("", "--pg-port is for the embedded server and was not used")
    else:
        joined = "joined, it was running already" if embedded.joined else "started"
        say("PostgreSQL", f"{embedded.version}, embedded, {joined}; data in {embedded.data_dir}")
        psql = shutil.which("psql") or embedded.bin_dir / "psql"
        say("Connect", f"{psql} '{embedded.url()}'")
        if embedded.tcp_url is not None:
            # The password is read by the shell: in an argument everybody on the machine could see it.
            password = shlex.quote(str(embedded.data_dir / "password"))
            say("", f"PGPASSWORD=$(cat {password}) {psql} '{show_url(embedded.tcp_url)}'")
        if settings.pg_port is not None and f":{settings.pg_port}/" not in (embedded.tcp_url or ""):
            say("", f"not on port {settings.pg_port}: the server runs already; stop it first to change that")
    applied = len(store.server.applied)
    migrations = f"{applied} migration(s) applied just now" if applied else "migrations are up to date"
    say("Schema", f"{settings.db_schema}: {migrations}")
    say("Workers", ", ".join(projection.name for projection in projections) + " follow the log")
    choice = (
        f" --data-dir {shlex.quote(str(settings.data_dir))}"
        if embedded and settings.data_dir != Settings().data_dir
        else ""
    )
    say("Next", f"in another terminal: eventstore seed{choice}, or eventstore import{choice} FILE.jsonl,")
    say("", f"then eventstore conversations{choice} and eventstore status{choice}")
