"""The HTTP/1.1 protocol of the server: uvicorn's, with a limit on connections and with timeouts.

**Limit on connections.** Opening a connection costs a client almost nothing, so one client could open as many as the
server allows and send half a head on each. Below the limit, a network may have any number of connections. At the limit,
a new connection displaces an idle one of the network that has most idle connections: the oldest without a response, or
else the oldest. So a client that opens thousands of connections does not shut out other networks.

Behind a proxy, all clients are in one network. If the new connection's own network has most idle connections, it
displaces only a connection without a response, or one whose rejection is delayed. A client that sends its request
immediately gets the response long before its connection is the oldest.

**Timeouts.** uvicorn closes a connection that stays idle after a response. It waits without a limit for the first
request, for the rest of a head that arrives byte by byte, and for a client that does not read its response. A few
thousand such connections would use up the limit on connections or the file descriptors.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_manager.metrics import Metrics
from agent_manager.server.middleware import ABORT
from agent_manager.server.problems import problem

# Limit on connections

Close = Callable[[], None]
SET_DISPLACEABLE = "eventstore.set_displaceable"
"""The key in a request's ASGI scope of a function that lets its connection be displaced as if it were idle."""


class ConnectionLimit:
    """A limit on the connections of a server, fair between networks.

    A connection is *idle* while it has no request in progress: before its first head is complete, and between two
    requests.

    Args:
        most: Connections at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._network: dict[Close, str] = {}
        self._idle: dict[str, dict[Close, bool]] = {}
        """The idle connections by network, the oldest first, each with whether it has had a response."""

    def __len__(self) -> int:
        return len(self._network)

    def add(self, close: Close, address: str) -> bool:
        """Add a connection, and close another one if the limit is reached; return False if none can be displaced.

        Args:
            close: Closes the connection. It also identifies the connection in the other methods.
            address: The address of the client.
        """
        network = network_of(address)
        if len(self) >= self._most:
            largest = max(self._idle, key=lambda each: len(self._idle[each]), default=network)
            idle = self._idle.get(largest, {})
            is_own = len(idle) <= len(self._idle.get(network, ()))
            without_response = next((each for each, had_response in idle.items() if not had_response), None)
            displaced = without_response or (None if is_own else next(iter(idle)))
            if displaced is None:
                return False
            self.remove(displaced)
            displaced()
        self._network[close] = network
        self.set_idle(close)
        return True

    def set_idle(self, close: Close, *, had_response: bool = False) -> None:
        """Mark a connection as idle.

        Args:
            had_response: Whether it has had a response. If it is idle already, the earlier value stays.
        """
        if close in self._network:
            self._idle.setdefault(self._network[close], {}).setdefault(close, had_response)

    def set_busy(self, close: Close) -> None:
        """Mark a connection as busy: it has a request in progress and cannot be displaced."""
        network = self._network.get(close, "")
        idle = self._idle.get(network, {})
        if idle.pop(close, None) is not None and not idle:
            del self._idle[network]

    def remove(self, close: Close) -> None:
        """Remove a connection that has ended."""
        self.set_busy(close)
        self._network.pop(close, None)


def network_of(address: str) -> str:
    """Return the network that one host may own: the /64 of an IPv6 address, or the IPv4 address itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


# Protocol with timeouts

WRITE_TIMEOUT_SECONDS = 30.0
"""Seconds after which a client that has taken less than about 112 KiB of its response is disconnected."""
LINGERING, LINGER_SECONDS = 50, 1.0
"""Connections beyond the limit that are kept open for a moment before they are closed, and for how many seconds."""
_CLOSE = b"Connection: close\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _CLOSE + b"\r\n"
_NO_HTTP = problem(
    400, "the request is not valid HTTP/1.1, or its head takes more than 16 KiB: send a shorter URL and fewer headers"
).body
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\n"
    b"Connection: close\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n%s" % (len(_NO_HTTP), _NO_HTTP)
)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _CLOSE + b"\r\n"


def limited_protocol(seconds: float, most: int, metrics: Metrics) -> type[asyncio.Protocol]:
    """Return the protocol class of a server's connections.

    Args:
        seconds: Seconds for the head of a request to arrive, from when the connection can receive it.
        most: Connections at a time.
        metrics: The metrics of the process, which count what is rejected here.
    """
    limit = ConnectionLimit(most)
    lingering = set[asyncio.Protocol]()

    class LimitedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _write_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
            super().connection_made(transport)
            self.app_state = {**self.app_state, ABORT: transport.abort}
            if limit.add(self._displace, self.client[0] if self.client else ""):
                self._update_state()
            else:
                self._displace()

        def connection_lost(self, exc: Exception | None) -> None:
            limit.remove(self._displace)
            lingering.discard(self)
            self._stop_head_timer()
            self._stop_write_timer()
            super().connection_lost(exc)
            # They refer back to the connection, and hold what has arrived of a body.
            self.cycle = self.scope = None  # type: ignore[assignment]  # not used any more

        def data_received(self, data: bytes) -> None:
            if self in lingering:
                return  # discarded: if data is unread when a socket is closed, the kernel resets the connection
            super().data_received(data)
            self._update_state()

        def on_response_complete(self) -> None:
            super().on_response_complete()  # may start the next request
            if not self._has_request():
                limit.set_busy(self._displace)  # it may be marked as idle, because its rejection was delayed
                limit.set_idle(self._displace, had_response=True)

        def send_400_response(self, msg: str) -> None:
            metrics.count_rejection("no_http")
            if not self._has_request():  # a response that has begun cannot be replaced
                self.transport.write(_BAD)
            self.transport.close()

        def _has_request(self) -> bool:
            cycle: Any = self.cycle
            return cycle is not None and not cycle.response_complete

        def _update_state(self) -> None:
            """Start the timeout of the next head; stop it if a request is in progress."""
            if self._has_request():
                cast("dict[str, Any]", self.scope)[SET_DISPLACEABLE] = partial(limit.set_idle, self._displace)
                limit.set_busy(self._displace)
                self._stop_head_timer()
                return
            limit.set_idle(self._displace)
            if self._head_timer is None and not self.transport.is_closing():
                self._head_timer = self.loop.call_later(seconds, self._close_slow_sender)

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _close_slow_sender(self) -> None:
            self._head_timer = None
            if not self._has_request() and not self.transport.is_closing():
                metrics.count_rejection("slow_head")
                self.transport.write(_LATE)
                self.transport.close()

        def pause_writing(self) -> None:
            """Start the timeout of a full write buffer, in which it must drain to its low-water mark (16 KiB)."""
            super().pause_writing()
            self._write_timer = self.loop.call_later(WRITE_TIMEOUT_SECONDS, self._abort_slow_reader)

        def resume_writing(self) -> None:
            self._stop_write_timer()
            super().resume_writing()

        def _stop_write_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def _abort_slow_reader(self) -> None:
            metrics.count_rejection("slow_reader")
            self.transport.abort()

        def _displace(self) -> None:
            """Close the connection because of the limit: after a delay, unless many are delayed already.

            Without the delay, a client that reconnects whenever it is disconnected would do so without a pause.
            """
            metrics.count_rejection("connections")
            if len(lingering) < LINGERING:
                lingering.add(self)
                self.loop.call_later(LINGER_SECONDS, self._reject_connection)
            else:
                self._reject_connection()

        def _reject_connection(self) -> None:
            lingering.discard(self)
            if not self.transport.is_closing():
                self.transport.write(_FULL)
                self.transport.close()

    return cast("type[asyncio.Protocol]", LimitedProtocol)
