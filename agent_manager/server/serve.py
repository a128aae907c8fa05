"""Serving the application with uvicorn: sockets, TLS, shutdown."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn

from agent_manager.auth import Authenticator
from agent_manager.factory import AsyncManager
from agent_manager.server.app import create_app
from agent_manager.server.context import ServerContext
from agent_manager.server.middleware import Deadline, SecurityHeaders, names_of
from agent_manager.server.protocol import protocol_with_timeouts
from agent_manager.server.sealed_tokens import open_sealer
from agent_manager.settings import server_settings
from eventstore import EventStore
from eventstore.concurrency import cancel_and_wait
from eventstore.errors import SettingsError

# TLS by a certificate and its key


def tls_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """What a server speaks TLS 1.2 and later with.

    Args:
        certificate: a PEM file: the server's, and those between it and the authority.
        key: a PEM file with its private key, without a password; in the same file if left out.

    Raises:
        SettingsError: they cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Whoever runs this may not be there to be asked for a password.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        named = f"--tls-cert {certificate}" + (f" --tls-key {key}" if key is not None else "")
        raise SettingsError(
            f"{named}: {reason}: give PEM files that can be read, a certificate and the key that belongs to it, "
            "without a password"
        ) from None
    return context


# Serving HTTP beside everything else that one event loop does: it begins with a socket, and ends when told to

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
_GRACE_SECONDS = 5
BACKLOG = 2048
"""Connections that the kernel keeps until they are accepted."""
ACCEPTED_AT_ONCE = 8
"""Connections that are accepted in one turn of the event loop. Each has a file of its own before the limit of
connections sees it, and holds up all requests for a moment."""


SWITCH_SECONDS = 0.001
"""For which a thread holds the interpreter while the event loop waits for it; by default it is 5 ms."""
FULL_COLLECTION_EVERY = 500
"""Collections of the middle generation until all objects are visited; by default 10."""


@contextmanager
def _short_pauses() -> Iterator[None]:
    """Keep the interpreter from stopping all requests often or for long.

    A full garbage collection stops everything for a fraction of a second: a thousand connections are 200,000 objects.
    By default one tenant's large requests cause one or two a second. They become rare enough to delay less than one
    request in a hundred, and do not visit what exists before the first request, above all the code. Most garbage is
    freed at once or is collected young.
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
    """A server that leaves signals to its caller, and accepts few connections at a time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen. asyncio takes one number for the kernel's queue and for what it accepts at once."""
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        port: 0 is any free one; None the default one, or any free one where that is taken.

    Raises:
        SettingsError: nothing can listen there.
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
            f"--host {host} --port {wanted}: {reason}: choose another address, port 0 for any free one, or --no-http"
        ) from None


def _listening(family: int, address: str, port: int) -> socket.socket:
    made = socket.create_server((address, port), family=family, backlog=BACKLOG)
    # asyncio turns Nagle's algorithm off only where a socket names its protocol. With it, a small answer, which goes
    # out in two pieces, waits some 40 ms for the client's delayed acknowledgement.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, made.detach())


def is_own(listening: socket.socket) -> bool:
    """Whether only this machine itself reaches it."""
    return names_of(str(listening.getsockname()[0])) is not None


def may_fetch_private(store: EventStore, listening: socket.socket) -> bool:
    """Whether the server may fetch from addresses that are not global: as the settings say, or if only this machine
    reaches it.
    """
    allowed = server_settings(store.settings).agent_allow_private
    return is_own(listening) if allowed is None else allowed


def url_of(listening: socket.socket, *, has_tls: bool = False) -> str:
    """The address as one types it."""
    host, port = listening.getsockname()[:2]
    return f"http{'s' * has_tls}://{f'[{host}]' if ':' in host else host}:{port}"


@asynccontextmanager
async def serving(
    store: EventStore,
    manager: AsyncManager,
    listening: socket.socket,
    *,
    requires_tokens: bool = False,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ServerContext]:
    """Serves until the end of the block, and then ends what is under way: endless answers at once.

    Args:
        requires_tokens: also of those on this machine; everybody else needs one anyway.
        tls: what TLS is spoken with; plain HTTP if left out.
    """
    requires_tokens = requires_tokens or not is_own(listening)
    async with Authenticator(store, store.settings) as authenticator:
        sealing = await open_sealer(store)
        server_context = ServerContext(
            store,
            manager,
            authenticator,
            sealing,
            requires_tokens=requires_tokens,
            allows_private=may_fetch_private(store, listening),
        )
        server = _Server(_config(server_context, listening, tls))
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            with _short_pauses():
                yield server_context
        finally:
            server_context.close_streams()
            server.should_exit = True
            done, _ = await asyncio.wait((running,), timeout=2 * _GRACE_SECONDS)
            await cancel_and_wait([running])
            await server_context.close()
            listening.close()
            for task in done:
                task.result()


def _config(server_context: ServerContext, listening: socket.socket, tls: ssl.SSLContext | None) -> uvicorn.Config:
    settings = server_context.settings
    # Where a token is needed, a page that calls this machine by another name gets nothing by it; and a proxy may do so.
    names = None if server_context.gate.requires_tokens else names_of(str(listening.getsockname()[0]))
    config = uvicorn.Config(
        SecurityHeaders(
            Deadline(create_app(server_context, names=names), settings.request_seconds, server_context.counters),
            server_context.counters,
        ),
        http=protocol_with_timeouts(settings.body_seconds, settings.max_connections, server_context.counters),
        lifespan="off",
        log_config=None,
        access_log=False,
        log_level="error",  # what is no HTTP is answered; a line for each would let strangers fill the log
        server_header=False,
        ws="none",
        backlog=ACCEPTED_AT_ONCE,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    config.load()
    config.ssl = tls
    return config
