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

from typer import Option

from agent_manager.agents.agent_spec import agent_from_spec
from agent_manager.agents.credentials import AgentCredentials
from agent_manager.backup.schedule import follow_schedule
from agent_manager.cli.options import (
    AllowSuperuser,
    DataDir,
    LogFormat,
    LogLevel,
    MetricsHost,
    MetricsPort,
    read_settings,
)
from agent_manager.cli.output import text
from agent_manager.cli.project import print_line, print_sealing, run_service, run_workers
from agent_manager.factory import AsyncManager
from agent_manager.metrics import Metrics
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
from agent_manager.server.tenant_contexts import OWN_FOLD_BYTES
from agent_manager.settings import server_settings
from eventstore import EventStore, Settings
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import SettingsError
from eventstore.urls import show_name, show_url
from projections import Projection


def up(
    data_dir: DataDir = None,
    pg_port: Annotated[
        int | None,
        Option(
            min=1,
            max=65535,
            help="Let the embedded server also listen on this port of 127.0.0.1, with a password. Off by default.",
        ),
    ] = None,
    host: Annotated[
        str, Option(help="The address to serve HTTP on; 0.0.0.0 is every address of this machine.")
    ] = DEFAULT_HOST,
    port: Annotated[
        int | None,
        Option(
            min=0,
            max=65535,
            help=f"The port; 0 is any free one. By default {DEFAULT_PORT}, or any free one if that is in use.",
        ),
    ] = None,
    no_http: Annotated[bool, Option("--no-http", help="Do not serve HTTP.")] = False,
    require_tokens: Annotated[
        bool,
        Option(
            "--require-tokens",
            help="Require a token from every client, also on this machine; use it behind a proxy. "
            "On addresses other than the loopback interface, tokens are always required.",
        ),
    ] = False,
    tls_cert: Annotated[Path | None, Option(help="Serve HTTPS with the certificate in this PEM file.")] = None,
    tls_key: Annotated[Path | None, Option(help="Its private key, if that is in another PEM file.")] = None,
    metrics_host: MetricsHost = None,
    metrics_port: MetricsPort = None,
    allow_superuser: AllowSuperuser = False,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
) -> None:
    """Start everything: server, schema, workers, HTTP. Ctrl-C stops it.

    If no server is configured, it starts the embedded PostgreSQL, or joins the one that another process started; the
    last process to exit stops it. It applies the migrations that are missing (after "eventstore migrate down" it
    refuses to), runs the workers that keep the read tables up to date, and serves the HTTP API: the endpoints of the
    A2A demo application, and a REST API under /v1, described by /openapi.json. Clients authenticate with a token
    (eventstore keys add NAME, or a JWT). On the loopback interface, which is the default, no token is needed.
    """
    settings = read_settings(
        data_dir, is_service=True, pg_port=pg_port, metrics_host=metrics_host, metrics_port=metrics_port,
        allow_superuser=allow_superuser, log_format=log_format, log_level=log_level,
    )  # fmt: skip
    if tls_key is not None and tls_cert is None:
        raise SettingsError("--tls-key: its certificate is missing: give --tls-cert too")
    tls = None if tls_cert is None else tls_context(tls_cert, tls_key)
    credentials = AgentCredentials.load(settings.agent_credentials)
    if settings.answer:
        agent_from_spec(settings.answer)  # to report a wrong name before anything is started
    if no_http:
        run_service(run_workers(settings, _describe, _make_backups))
        return
    with listen(host, port) as listening:
        http = partial(
            _serve_http,
            listening=listening,
            port=port,
            requires_tokens=require_tokens,
            tls=tls,
            credentials=credentials,
        )
        run_service(run_workers(settings, _describe, _make_backups, http))


@asynccontextmanager
async def _make_backups(store: EventStore, _: Metrics) -> AsyncIterator[None]:
    """Make backups as the settings demand, until the end of the block."""
    settings = server_settings(store.settings)
    if not settings.backup_dir:
        yield
        return
    print_line("Backups", f"every {settings.backup_minutes:g} minutes, into {settings.backup_dir}")
    following = asyncio.create_task(follow_schedule(settings))
    try:
        yield
    finally:
        await cancel_and_wait([following])


@asynccontextmanager
async def _serve_http(
    store: EventStore,
    metrics: Metrics,
    *,
    listening: socket.socket,
    port: int | None,
    requires_tokens: bool,
    tls: ssl.SSLContext | None,
    credentials: AgentCredentials,
) -> AsyncIterator[None]:
    settings = server_settings(store.settings)
    agent = settings.answer
    allow_private = may_fetch_private(store, listening)
    answer = agent_from_spec(agent, allow_private=allow_private, credentials=credentials) if agent else None
    async with (
        AsyncManager(
            store, answer=answer, runs_worker=False, fold_bytes=OWN_FOLD_BYTES, credentials=credentials
        ) as manager,
        serving(store, manager, listening, metrics=metrics, requires_tokens=requires_tokens, tls=tls) as server_context,
    ):
        url = url_of(listening, has_tls=tls is not None)
        print_line("HTTP", f"{url}; GET {url}/openapi.json describes it")
        print_line("Console", f"{url}/console")
        if port is None and listening.getsockname()[1] != DEFAULT_PORT:
            print_line("", f"not on port {DEFAULT_PORT}, which is in use: choose another with --port")
        if server_context.authenticator.requires_tokens:
            print_line("Tokens", f"required: eventstore keys add{data_dir_option(store)} NAME creates one")
            if tls is None and not is_own(listening):
                print_line("", "sent unencrypted: use --tls-cert, or a proxy with TLS")
            if not is_own(listening):
                print_line("Proxy", "use one that limits connections per address, such as deploy/nginx.conf")
        else:
            print_line("Tokens", "not required: every user of this machine may read and write; see --require-tokens")
        if settings.jwt_key or settings.jwt_jwks:
            issuer, audience = settings.jwt_issuer or "any issuer", settings.jwt_audience or "no audience"
            print_line("JWT", f"accepted as tokens: of {issuer}, for {audience}")
        print_line("Answers", show_name(agent) if agent else "no agent answers messages: set EVENTSTORE_ANSWER")
        if pending := await manager.pending():
            oldest = text(min(each.since for each in pending))
            command = f"eventstore pending{data_dir_option(store)}"
            print_line("Pending", f"{len(pending)} message(s) await an answer, since {oldest}: {command}")
        yield


def _describe(store: EventStore, projections: Sequence[Projection]) -> None:
    embedded = store.server.embedded
    settings = store.settings
    if embedded is None:
        print_line("PostgreSQL", store.server.public_url)
        if settings.pg_port is not None:
            print_line("", "--pg-port is for the embedded server and was ignored")
    else:
        joined = "joined, it was running already" if embedded.joined else "started"
        print_line("PostgreSQL", f"{embedded.version}, embedded, {joined}; data in {embedded.data_dir}")
        psql = shutil.which("psql") or embedded.bin_dir / "psql"
        print_line("Connect", f"{psql} '{embedded.url()}'")
        if embedded.tcp_url is not None:
            # The shell reads the password: every user of the machine could see an argument.
            password = shlex.quote(str(embedded.data_dir / "password"))
            print_line("", f"PGPASSWORD=$(cat {password}) {psql} '{show_url(embedded.tcp_url)}'")
        if settings.pg_port is not None and f":{settings.pg_port}/" not in (embedded.tcp_url or ""):
            print_line("", f"not on port {settings.pg_port}: the server is running already; stop it to change the port")
    if (standby := store.connections.standby) is not None:
        print_line("Reads", f"from {show_url(standby.url)}; eventstore status{data_dir_option(store)} shows its lag")
    applied = len(store.server.applied)
    migrations = f"{applied} migration(s) applied just now" if applied else "migrations are up to date"
    print_line("Schema", f"{settings.db_schema}: {migrations}")
    print_line("Workers", ", ".join(projection.name for projection in projections) + " follow the log")
    print_sealing(store)
    option = data_dir_option(store)
    print_line("Next", f"in another terminal: eventstore seed{option}, or eventstore import{option} FILE.jsonl,")
    print_line("", f"then eventstore conversations{option} and eventstore status{option}")


def data_dir_option(store: EventStore) -> str:
    """Return the option that a command needs to find the same embedded server, if it needs any."""
    data_dir = store.settings.data_dir
    return (
        f" --data-dir {shlex.quote(str(data_dir))}" if store.server.embedded and data_dir != Settings().data_dir else ""
    )
