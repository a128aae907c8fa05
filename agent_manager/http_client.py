"""HTTP clients with limits on the size of responses and on the addresses that they connect to.

The server of a response chooses its encoding: a body of two kilobytes, compressed twice, can become gigabytes. httpx
decodes each received piece as a whole. Here pieces are decoded at most ``_PIECE_BYTES`` at a time, and the bytes of
every stage of the encoding are counted.

A client that can make a server fetch a URL uses the server's place in its network (server-side request forgery). A host
name is resolved once, each of its addresses is checked, and the connection is made to a checked address: a second
look-up could return another one (DNS rebinding). Redirects pass the same check.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import httpx

MAX_NESTING = 100
"""The deepest nesting of lists and objects in fetched JSON; an agent's card has about six levels."""
_MAX_ENCODINGS = 2
_PIECE_BYTES = 64 * 1024
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ResponseTooLarge(httpx.DecodingError):
    """The response is larger than the limit, or has an encoding that is not supported."""


class PrivateAddress(httpx.ConnectError):
    """The host has an address that clients may not connect to."""


def open_client(
    *,
    limit: int,
    allow_private: bool = True,
    trusted_host: str = "",
    transport: httpx.AsyncBaseTransport | None = None,
    hooks: Sequence[Callable[[httpx.Response], Awaitable[None]]] = (),
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client with limits.

    Args:
        limit: The maximum size of a decoded response, in bytes.
        allow_private: Connect also to addresses that are not global: private, loopback, link-local. If False, the
            proxies of the environment are not used, because they would resolve host names again.
        trusted_host: A host that the operator has configured; it may have any address.
        transport: A transport that applies these rules itself.
        hooks: Called with each response before its body is read.
        options: Further arguments of ``httpx.AsyncClient``.
    """

    async def limit_body(response: httpx.Response) -> None:
        _limit_body(response, limit)

    return httpx.AsyncClient(
        transport=transport if transport or allow_private else CheckedTransport(trusted_host),
        headers={"Accept-Encoding": "gzip"},
        event_hooks={"response": [limit_body, *hooks]},
        **options,
    )


def load_json(body: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, or nested more than :data:`MAX_NESTING` levels deep.
    """
    too_deep = f"it is nested more than {MAX_NESTING} levels deep"
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value]
    for _ in range(MAX_NESTING + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return value
    raise ValueError(too_deep)


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def is_global(address: str) -> bool:
    """Return whether an IP address, and an IPv4 address embedded in it, belongs to the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_global(str(embedded))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class CheckedTransport(httpx.AsyncBaseTransport):
    """A transport that resolves host names itself and connects only to global addresses."""

    def __init__(self, trusted_host: str, verify: ssl.SSLContext | bool = True) -> None:
        self._trusted_host = trusted_host
        self._inner = httpx.AsyncHTTPTransport(verify=verify)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host, port = request.url.host, request.url.port or (443 if request.url.scheme == "https" else 80)
        addresses = await checked_addresses(host, port, trusted_host=self._trusted_host)
        for address in addresses[:-1]:
            try:
                return await self._send(request, host, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._send(request, host, addresses[-1])

    async def _send(self, request: httpx.Request, host: str, address: str) -> httpx.Response:
        """Send a request to an address; the header Host and the certificate are still those of the host."""
        return await self._inner.handle_async_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host=address),
                headers=request.headers,
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": host},
            )
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


async def checked_addresses(host: str, port: int, *, allow_private: bool = False, trusted_host: str = "") -> list[str]:
    """Return the addresses of a host, to be connected to without another look-up.

    Args:
        allow_private, trusted_host: see :func:`open_client`.

    Raises:
        httpx.ConnectError: The name cannot be resolved; as :class:`PrivateAddress`, an address is not allowed.
    """
    addresses = await _resolve(host, port)
    if not allow_private and host.lower() != trusted_host.lower() and not all(map(is_global, addresses)):
        raise PrivateAddress(
            f"{host} has a private, loopback or link-local address, from which this server fetches nothing: "
            "EVENTSTORE_AGENT_ALLOW_PRIVATE=true allows it"
        )
    return addresses


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"the name {host} cannot be resolved: {error}") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _limit_body(response: httpx.Response, limit: int) -> None:
    """Replace the body of a response by one that is decoded here, and ends with an error beyond the limit."""
    encodings = [each.strip().lower() for each in response.headers.get("content-encoding", "").split(",")]
    encodings = [each for each in encodings if each not in ("", "identity")]
    if len(encodings) > _MAX_ENCODINGS or not set(encodings) <= {"gzip", "x-gzip", "deflate"}:
        raise ResponseTooLarge(f"the encoding {', '.join(encodings)!r:.80} is not supported", request=response.request)
    if encodings:  # httpx must not decode the body again
        del response.headers["content-encoding"]
        response.headers.pop("content-length", None)
    stream = cast("httpx.AsyncByteStream", response.stream)
    response.stream = _LimitedStream(stream, response.request, encodings, limit)


class _LimitedStream(httpx.AsyncByteStream):
    """A body, decoded piece by piece up to a limit."""

    def __init__(
        self, encoded: httpx.AsyncByteStream, request: httpx.Request, encodings: list[str], limit: int
    ) -> None:
        self._encoded = encoded
        self._request = request
        self._decoders = [_Decoder(name) for name in reversed(encodings)]
        self._left = [limit] * (len(encodings) + 1)
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._encoded:
                for decoded in self._decode(piece, 0):
                    yield decoded
        except zlib.error as error:
            raise httpx.DecodingError(
                f"the body is not encoded as Content-Encoding says: {error}", request=self._request
            ) from None

    def _decode(self, piece: bytes, stage: int) -> Iterator[bytes]:
        self._left[stage] -= len(piece)
        if self._left[stage] < 0:
            raise ResponseTooLarge(f"the response is longer than {self._limit:,} bytes", request=self._request)
        if stage == len(self._decoders):
            yield piece
            return
        for part in self._decoders[stage].decode(piece):
            yield from self._decode(part, stage + 1)

    async def aclose(self) -> None:
        await self._encoded.aclose()


class _Decoder:
    """A decoder of gzip or deflate that returns its output in small parts."""

    def __init__(self, encoding: str) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS + 32)  # 32: accept a header of gzip or of zlib
        self._is_deflate = encoding == "deflate"
        self._has_begun = False

    def decode(self, piece: bytes) -> Iterator[bytes]:
        """Yield the decoded parts of a piece."""
        while piece and not self._zlib.eof:
            try:
                part = self._zlib.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                if self._has_begun or not self._is_deflate:
                    raise
                self._zlib = zlib.decompressobj(-zlib.MAX_WBITS)  # some servers send deflate without its header
                part = self._zlib.decompress(piece, _PIECE_BYTES)
            self._has_begun = True
            piece = self._zlib.unconsumed_tail
            if part:
                yield part
