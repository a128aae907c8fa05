"""Connections to the hosts of an agent, over HTTP and gRPC: which addresses, with which credentials, how many bytes.

Credentials are added below the client that follows redirects, by the origin of each request, so no redirect carries
them elsewhere. gRPC has no redirects; its names are resolved and checked here, and it connects to checked addresses.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from agent_manager.agents.credentials import AgentCredentials, Credentials, Origin
from agent_manager.errors import AgentUnsupported, InvalidUpdate
from agent_manager.http_client import CheckedTransport, checked_addresses
from eventstore.urls import show_url

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Largest response of an agent, streams included."""
CONNECT_SECONDS = 10.0
_GRPC_SCHEMES = {"http": "http", "https": "https", "grpc": "http", "grpcs": "https"}
_GZIP = b"\x1f\x8b"
"""The beginning of gzip's format; no message of protobuf begins so, because it has no wire type 7."""


Headers: TypeAlias = Sequence[tuple[str, str]]
Decode: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True)
class AgentAccess:
    """The hosts that an exchange with an agent may reach, and its credentials for them.

    Attributes:
        allow_private: whether to connect also to addresses that are not global.
        trusted_host: a host that the operator has configured; it may have any address.
    """

    allow_private: bool = True
    trusted_host: str = ""
    credentials: AgentCredentials = field(default_factory=AgentCredentials)
    by_origin: dict[Origin, Credentials] = field(default_factory=dict)

    def add(self, url: str) -> None:
        """Use the credentials of the agent, or of the interface in its card, at a URL."""
        if (found := self.credentials.find(url)) is not None:
            self.by_origin.setdefault(found.origin, found)


class AuthorizingTransport(httpx.AsyncBaseTransport):
    """A transport that adds an agent's credentials to the requests to their origin."""

    def __init__(self, access: AgentAccess) -> None:
        self._access = access
        self._transports: dict[Origin, httpx.AsyncBaseTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, with the credentials for its origin."""
        origin = Origin.of(str(request.url))
        credentials = self._access.by_origin.get(origin)
        if origin not in self._transports:
            self._transports[origin] = self._transport(origin, credentials)
        if credentials is not None:
            # A request of its own: the client would copy the headers of its request into a redirected one.
            request = httpx.Request(
                request.method,
                request.url,
                # No variable holds them, because reports of errors may show local variables.
                headers={**request.headers, **credentials.current_headers()},
                stream=request.stream,
                extensions=request.extensions,
            )
        return await self._transports[origin].handle_async_request(request)

    def _transport(self, origin: Origin, credentials: Credentials | None) -> httpx.AsyncBaseTransport:
        verify = (credentials and credentials.tls) or True
        if not self._access.allow_private:
            return CheckedTransport(self._access.trusted_host, verify)
        proxies = {} if proxy_bypass(origin.host) else getproxies()  # those that the default transport uses
        return httpx.AsyncHTTPTransport(verify=verify, proxy=proxies.get(origin.scheme, proxies.get("all")))

    async def aclose(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            await transport.aclose()


# gRPC


def grpc_url(url: str) -> str:
    """Return the URL, with the scheme http or https, of an interface that a card names for gRPC.

    Cards give ``host:port`` or a URL. Without a scheme, TLS is used except on this machine.

    Raises:
        AgentUnsupported: it is neither.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        rest = url
        scheme = "grpc" if Origin.of(f"http://{url}").is_loopback else "grpcs"
    parts = urlsplit(f"http://{rest}")
    if scheme not in _GRPC_SCHEMES or not parts.hostname or "@" in parts.netloc:
        raise AgentUnsupported(f"the card names {show_url(url)} for gRPC: expected host:port, http:// or https://")
    return f"{_GRPC_SCHEMES[scheme]}://{parts.netloc}"


async def open_channel(url: str, access: AgentAccess) -> GrpcChannel:
    """Return a channel of gRPC to the interface at a URL (:func:`grpc_url`).

    Raises:
        httpx.ConnectError: the host cannot be resolved, or has an address that is not allowed.
    """
    grpc = import_module("grpc")
    origin, credentials = Origin.of(url), access.by_origin.get(Origin.of(url))
    addresses = await checked_addresses(
        origin.host, origin.port, allow_private=access.allow_private, trusted_host=access.trusted_host
    )
    # One scheme for both versions of IP: an IPv4 address is written as an IPv6 address that is mapped to it.
    mapped = (ip if (ip := ip_address(each)).version == 6 else f"::ffff:{ip}" for each in addresses)
    target = "ipv6:" + ",".join(f"[{ip}]:{origin.port}" for ip in mapped)
    options = [
        ("grpc.default_authority", urlsplit(url).netloc),
        ("grpc.enable_http_proxy", 0),  # a proxy would resolve the name again
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_SECONDS * 1000)),
        ("grpc.per_message_decompression", 0),  # it has no limit: GrpcChannel decompresses
    ]
    if origin.scheme == "http":
        channel = grpc.aio.insecure_channel(target, options)
    else:
        options.append(("grpc.ssl_target_name_override", origin.host))
        files = {} if credentials is None else credentials.pem_files()
        channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(**files), options)
    return GrpcChannel(channel, {} if credentials is None else credentials.current_headers())


class GrpcChannel:
    """A channel that adds headers to each call, and limits the decompressed size of what it receives.

    It has what the stubs of gRPC use of a channel, for calls with one request. Messages are decoded after they are
    received: gRPC would log an error of a deserializer and go on.
    """

    def __init__(self, channel: Any, headers: Mapping[str, str]) -> None:
        self._channel = channel
        self._headers = list(headers.items())
        self._left = MAX_RESPONSE_BYTES

    def unary_unary(self, method: str, *, response_deserializer: Decode, **options: Any) -> Callable[..., Any]:
        """Return a function that calls a method with one response."""
        call = self._channel.unary_unary(method, **options)

        async def send(request: Any, *, metadata: Headers | None = None, **more: Any) -> Any:
            return self._decoded(
                await call(request, metadata=[*(metadata or ()), *self._headers], **more), response_deserializer
            )

        return send

    def unary_stream(self, method: str, *, response_deserializer: Decode, **options: Any) -> Callable[..., Any]:
        """Return a function that calls a method with a stream of responses."""
        call = self._channel.unary_stream(method, **options)

        def send(request: Any, *, metadata: Headers | None = None, **more: Any) -> SimpleNamespace:
            stream = call(request, metadata=[*(metadata or ()), *self._headers], **more)

            async def read() -> Any:
                message = await stream.read()
                is_end = not isinstance(message, bytes)
                return message if is_end else self._decoded(message, response_deserializer)

            return SimpleNamespace(read=read)

        return send

    async def close(self, grace: float | None = None) -> None:
        """Close the connection."""
        await self._channel.close(grace)

    def _decoded(self, message: bytes, decode: Decode) -> Any:
        if message.startswith(_GZIP):
            message = zlib.decompressobj(zlib.MAX_WBITS + 16).decompress(message, self._left + 1)
        self._left -= len(message)
        if self._left < 0:
            raise InvalidUpdate(f"the response is longer than {MAX_RESPONSE_BYTES:,} bytes")
        return decode(message)
