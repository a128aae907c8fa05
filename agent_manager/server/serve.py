"""The HTTP server: uvicorn with a socket, TLS and shutdown, run within the caller's event loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_manager.auth import Authenticator
from agent_manager.factory import AsyncManager
from agent_manager.metrics import Metrics
from agent_manager.server.app import create_app, route_of
from agent_manager.server.context import ServerContext
from agent_manager.server.middleware import RequestGuard, SecurityHeaders, names_of
from agent_manager.server.protocol import limited_protocol
from agent_manager.server.readiness import Readiness
from agent_manager.server.request_log import RequestLog
from agent_manager.server.sealed_tokens import open_sealer
from agent_manager.settings import server_settings
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import SettingsError

# TLS


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """Return the TLS context of a server: TLS 1.2 and later.

    Args:
        certificate: A PEM file with the server's certificate, followed by the intermediate certificates.
        key: A PEM file with the private key, without a password; if None, ``certificate`` contains the key.

    Raises:
        SettingsError: The files cannot be read, or the key does not match the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password function, OpenSSL would prompt for the password of an encrypted key and block the start.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        named = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key is not None else "")
        raise SettingsError(
            f"{named}: {reason}: give readable PEM files of a certificate and its private key, without a password"
        ) from None
    return context


# Serving

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
_GRACE_SECONDS = 5
BACKLOG = 2048
"""Connections that the kernel queues until the server accepts them."""
ACCEPTED_AT_ONCE = 8
"""Connections that are accepted in one iteration of the event loop. Each takes a file descriptor before the limit on
connections applies, and delays all requests for a moment."""


METRICS_CONNECTIONS, METRICS_SECONDS = 50, 10.0
"""The limit on connections to the port of the metrics, and the time for the head of a request there."""
TICK_SECONDS = 1.0
"""Seconds between updates of the Date header of responses."""
SWITCH_SECONDS = 0.001
"""Seconds after which a thread must release the interpreter lock (GIL) to the event loop; Python's default is 5 ms."""
FULL_COLLECTION_EVERY = 50
"""Garbage collections of the middle generation between two full collections; Python's default is 10. Only small objects
wait for a full collection, such as the transport of a closed connection (3 KB), but no request body: while tenants sent
bodies slowly and did not read responses, the server took at most 284 MB without any full collection."""


@contextmanager
def _short_pauses() -> Iterator[None]:
    """Make pauses of the interpreter short and rare until the end of the block.

    A full garbage collection pauses all requests for a fraction of a second: a thousand connections are 200,000
    objects. By default, one tenant's large requests cause one or two full collections per second. Here they are rare
    enough to delay less than one request in a hundred, and skip the objects that exist before the first request, which
    are mostly code. Most garbage is freed by reference counting, or in collections of the younger generations.
    """
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(min(interval, SWITCH_SECONDS))
    gc.set_threshold(*thresholds[:2], FULL_COLLECTION_EVERY)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its caller, accepts few connections at a time, and is idle at rest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.exit_requested = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen.

        asyncio uses one number both for the kernel's queue and for the connections that it accepts at once. So the
        queue gets its own number afterwards.
        """
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)

    async def main_loop(self) -> None:
        """Serve until an exit is requested. uvicorn would look ten times a second; the Date header needs one tick."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self.exit_requested.wait()
            self.should_exit = self.should_exit or self.exit_requested.is_set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int | None, prefix: str = "") -> socket.socket:
    """Return a listening socket.

    Args:
        host: The host name or address.
        port: 0 is any free port; None is the default port, or any free port if that is in use.
        prefix: of the names of the options that give them.

    Raises:
        SettingsError: The address cannot be used.
    """
    wanted = DEFAULT_PORT if port is None else port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, wanted, type=socket.SOCK_STREAM)[0]
        try:
            return _listening(family, str(address[0]), wanted)
        except OSError as error:
            if port is not None or error.errno != errno.EADDRINUSE:
                raise
            return _listening(family, str(address[0]), 0)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) and not isinstance(error, socket.gaierror) else None
        reason = os.strerror(number) if number else str(error)
        raise SettingsError(
            f"--{prefix}host {host} --{prefix}port {wanted}: {reason}: choose another address or port (0 is any free "
            f"port){'' if prefix else ', or give --no-http'}"
        ) from None


def _listening(family: int, address: str, port: int) -> socket.socket:
    made = socket.create_server((address, port), family=family, backlog=BACKLOG)
    # asyncio sets TCP_NODELAY only on sockets with the protocol IPPROTO_TCP. With Nagle's algorithm, a small response,
    # which is sent in two pieces, waits about 40 ms for the client's delayed acknowledgement.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, made.detach())


def is_own(listening: socket.socket) -> bool:
    """Return whether a socket listens on loopback, so that only this machine reaches it."""
    return names_of(str(listening.getsockname()[0])) is not None


def may_fetch_private(store: EventStore, listening: socket.socket) -> bool:
    """Return whether the server may fetch agents' cards and answers from addresses that are not global.

    ``EVENTSTORE_AGENT_ALLOW_PRIVATE`` decides; by default it may if the socket listens on loopback.
    """
    allowed = server_settings(store.settings).agent_allow_private
    return is_own(listening) if allowed is None else allowed


def url_of(listening: socket.socket, *, has_tls: bool = False) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http{'s' * has_tls}://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def serving(
    store: EventStore,
    manager: AsyncManager,
    listening: socket.socket,
    *,
    metrics: Metrics | None = None,
    requires_tokens: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ServerContext]:
    """Serve HTTP until the end of the block, then shut down gracefully.

    Streams are closed immediately; other requests have a few seconds to finish.

    Args:
        listening: The listening socket; it is closed at the end.
        metrics: The metrics of the process; its own by default.
        requires_tokens: Whether a token is required on loopback, too; on other addresses it always is.
        tls: The TLS context; None for plain HTTP.
    """
    requires_tokens = requires_tokens or not is_own(listening)
    async with Authenticator(store, store.settings) as authenticator:
        sealing = await open_sealer(store)
        server_context = ServerContext(
            store,
            manager,
            authenticator,
            sealing,
            metrics,
            requires_tokens=requires_tokens,
            allows_private=may_fetch_private(store, listening),
        )
        try:
            async with _running(_config(server_context, listening, tls), listening):
                server_context.lag_history.start()
                try:
                    with _short_pauses():
                        yield server_context
                finally:
                    server_context.closing.set()  # ends the streams
        finally:
            await server_context.close()


@asynccontextmanager
async def _running(config: uvicorn.Config, listening: socket.socket) -> AsyncIterator[None]:
    """Run a server until the end of the block, then shut it down gracefully and close its socket."""
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield
    finally:
        server.exit_requested.set()
        done, _ = await asyncio.wait((running,), timeout=2 * _GRACE_SECONDS)
        await cancel_and_wait([running])
        listening.close()
        for task in done:
            task.result()


@asynccontextmanager
async def serving_metrics(store: EventStore, metrics: Metrics, listening: socket.socket) -> AsyncIterator[None]:
    """Serve ``/metrics``, ``/health`` and ``/ready`` until the end of the block, without tokens."""
    readiness = Readiness(store)

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        not_ready = await readiness.check()
        return not_ready.response(shows_cause=True) if not_ready else JSONResponse({"status": "ready"})

    async def read_metrics(_: Request) -> Response:
        return await metrics.response()

    routes = [Route("/metrics", read_metrics), Route("/health", health), Route("/ready", ready)]
    names = names_of(str(listening.getsockname()[0]))
    app = RequestGuard(Starlette(routes=routes), max_body_bytes=0, body_seconds=1, names=names, metrics=metrics)
    protocol = limited_protocol(METRICS_SECONDS, METRICS_CONNECTIONS, metrics)
    async with _running(uvicorn.Config(app, http=protocol, **_UVICORN), listening):
        yield


_UVICORN: dict[str, Any] = {
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "log_level": "critical",  # RequestLog logs the errors of requests
    "server_header": False,
    "ws": "none",
    "backlog": ACCEPTED_AT_ONCE,
    "timeout_graceful_shutdown": _GRACE_SECONDS,
}


def _config(server_context: ServerContext, listening: socket.socket, tls: ssl.SSLContext | None) -> uvicorn.Config:
    settings = server_context.settings
    # If tokens are required, DNS rebinding gains nothing, and the Host header may hold the name of a proxy.
    names = None if server_context.authenticator.requires_tokens else names_of(str(listening.getsockname()[0]))
    app = SecurityHeaders(create_app(server_context, names=names), server_context.metrics, route_of)
    config = uvicorn.Config(
        RequestLog(app, route_of),
        http=limited_protocol(settings.body_seconds, settings.max_connections, server_context.metrics),
        **_UVICORN,
    )
    config.load()
    config.ssl = tls
    return config
