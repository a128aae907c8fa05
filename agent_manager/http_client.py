"""HTTP clients with limits on response size and on the addresses they connect to.

The sender of an answer chooses its encoding. A body of two kilobytes, compressed twice, becomes gigabytes, and httpx
decodes each piece that arrives as a whole. Here pieces are decoded by at most ``_PIECE_BYTES`` at a time and counted
while they are, in every stage of the encoding.

Who names an address for a server to fetch from borrows the server's place in its network. A name is resolved once, each
of its addresses is checked, and the connection is made to an address that was checked: a second look-up could give
another one (DNS rebinding). Redirects pass through the same check.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import httpx

_PIECE_BYTES = 64 * 1024
_MOST_ENCODINGS = 2
"""Nobody who means well compresses more often."""
MOST_NESTING = 100
"""Levels of lists and objects in a fetched JSON: a card has about six."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ResponseTooLarge(httpx.DecodingError):
    """The answer is longer than its reader takes, or compressed in a way that it does not decode."""


class PrivateAddress(httpx.ConnectError):
    """A host is at an address from which nothing may be fetched."""


def open_client(
    *,
    limit: int,
    allow_private: bool = True,
    trusted_host: str = "",
    hooks: Sequence[Callable[[httpx.Response], Awaitable[None]]] = (),
    **options: Any,
) -> httpx.AsyncClient:
    """Return a client whose answers are bounded.

    Args:
        limit: bytes that an answer may have once it is decoded.
        allow_private: connect also to addresses that are not global: private, loopback, link-local. If it may not, the
            proxies that the environment names are not used: they would resolve the name again.
        trusted_host: the host that the operator has configured, at whatever address it is.
        hooks: called with each answer before its body is read.
        options: of ``httpx.AsyncClient``.
    """

    async def bound(response: httpx.Response) -> None:
        _bound(response, limit)

    return httpx.AsyncClient(
        transport=None if allow_private else _CheckedTransport(trusted_host),
        headers={"Accept-Encoding": "gzip"},
        event_hooks={"response": [bound, *hooks]},
        **options,
    )


def load_json(body: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested more than ``MOST_NESTING`` deep.
    """
    too_deep = f"it is nested more than {MOST_NESTING} levels deep"
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError(too_deep) from None
    level = [value]
    for _ in range(MOST_NESTING + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return value
    raise ValueError(too_deep)


def _members(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def is_global(address: str) -> bool:
    """Return whether an IP address, and an IPv4 address embedded in it, belongs to the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_global(str(inner))
        if found.is_site_local:
            return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


class _CheckedTransport(httpx.AsyncBaseTransport):
    """Connects only to global addresses, which it resolves itself."""

    def __init__(self, trusted_host: str) -> None:
        self._trusted = trusted_host.lower()
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        addresses = await _resolve(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        if host.lower() != self._trusted and not all(map(is_global, addresses)):
            raise PrivateAddress(
                f"{host} has a private, loopback or link-local address, from which this server fetches nothing: "
                "EVENTSTORE_AGENT_ALLOW_PRIVATE=true allows it"
            )
        for address in addresses[:-1]:
            try:
                return await self._send(request, host, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._send(request, host, addresses[-1])

    async def _send(self, request: httpx.Request, host: str, address: str) -> httpx.Response:
        """Send to an address what is meant for a host: the header Host and the certificate are still the host's."""
        sent = httpx.Request(
            request.method,
            request.url.copy_with(host=address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": host},
        )
        return await self._inner.handle_async_request(sent)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"the name {host} cannot be resolved: {error}") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _bound(response: httpx.Response, limit: int) -> None:
    """Have an answer decoded here, and ended if it becomes too large."""
    encodings = [each.strip().lower() for each in response.headers.get("content-encoding", "").split(",")]
    encodings = [each for each in encodings if each not in ("", "identity")]
    if len(encodings) > _MOST_ENCODINGS or not set(encodings) <= {"gzip", "x-gzip", "deflate"}:
        raise ResponseTooLarge(f"its encoding {', '.join(encodings)!r:.80} is not supported", request=response.request)
    if encodings:
        del response.headers["content-encoding"]
        response.headers.pop("content-length", None)
    sent = cast("httpx.AsyncByteStream", response.stream)
    response.stream = _Bounded(sent, response.request, encodings, limit)


class _Bounded(httpx.AsyncByteStream):
    """A body, decoded piece by piece up to a limit."""

    def __init__(self, sent: httpx.AsyncByteStream, request: httpx.Request, encodings: list[str], limit: int) -> None:
        self._sent = sent
        self._request = request
        self._stages = [_Stage(name) for name in reversed(encodings)]
        self._left = [limit] * (len(encodings) + 1)
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._sent:
                for decoded in self._decoded(piece, 0):
                    yield decoded
        except zlib.error as error:
            raise httpx.DecodingError(f"it is not compressed as it says: {error}", request=self._request) from None

    def _decoded(self, piece: bytes, stage: int) -> Iterator[bytes]:
        self._left[stage] -= len(piece)
        if self._left[stage] < 0:
            raise ResponseTooLarge(f"the answer is longer than {self._limit:,} bytes", request=self._request)
        if stage == len(self._stages):
            yield piece
            return
        for part in self._stages[stage].feed(piece):
            yield from self._decoded(part, stage + 1)

    async def aclose(self) -> None:
        await self._sent.aclose()


class _Stage:
    """One decoder, which gives what it has in small parts."""

    def __init__(self, encoding: str) -> None:
        # 32 more than the window: a header of gzip or zlib, whichever is there.
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS + 32)
        self._is_deflate = encoding == "deflate"
        self._has_begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Decode a piece that has arrived."""
        while piece and not self._decoder.eof:
            try:
                part = self._decoder.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                if self._has_begun or not self._is_deflate:
                    raise
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # "deflate" is often sent without its header
                part = self._decoder.decompress(piece, _PIECE_BYTES)
            self._has_begun = True
            piece = self._decoder.unconsumed_tail
            if part:
                yield part
