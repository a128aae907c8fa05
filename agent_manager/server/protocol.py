"""HTTP/1.1 with timeouts and a bound on connections.

A connection costs a client nothing until it has sent a request, so one address can open all there are and send half a
head on each. Until the server is full, everybody may have as many connections as they like. When it is full, a new
connection takes the place of the oldest idle one of the network that has most of them. So nobody who opens thousands of
connections shuts out another network.

Behind a proxy all share one network. So a new connection takes a place of its own network, too, if that has most: of
the oldest on which no request was answered yet, or of one that waits for a refusal. Whoever sends a request at once is
answered long before theirs is the oldest.

uvicorn closes a connection that is idle after an answer, and waits for ever for a first request, for the rest of a head
that comes byte by byte, or for a client that takes nothing of its answer. So a few thousand connections, which cost a
client nothing, would hold all there are.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_manager.server.limits import Counters
from agent_manager.server.middleware import ABORT
from agent_manager.server.problems import problem

# Which connections a server keeps when it has as many as it may: those being answered, and some of each network

Close = Callable[[], None]
SET_DISPLACEABLE = "eventstore.set_displaceable"
"""The member of a request's ASGI scope that, when called, lets its connection be displaced as if it were idle."""


class ConnectionLimit:
    """The connections of a server, by network.

    A connection is *idle* while no request of it is being answered: before its first head is complete, and between two
    requests.

    Args:
        most: connections at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._network: dict[Close, str] = {}
        self._idle: dict[str, dict[Close, bool]] = {}
        """By network, the oldest first; and whether a request was answered on it."""

    def __len__(self) -> int:
        return len(self._network)

    def add(self, close: Close, address: str) -> bool:
        """Add a connection, if need be in the place of another, which is closed; return whether there was a place.

        Args:
            close: closes the connection; it identifies it from now on.
        """
        network = network_of(address)
        if len(self) >= self._most:
            greediest = max(self._idle, key=lambda each: len(self._idle[each]), default=network)
            idle = self._idle.get(greediest, {})
            is_own = len(idle) <= len(self._idle.get(network, ()))
            unanswered = next((each for each, was_answered in idle.items() if not was_answered), None)
            displaced = unanswered or (None if is_own else next(iter(idle)))
            if displaced is None:
                return False
            self.remove(displaced)
            displaced()
        self._network[close] = network
        self.set_idle(close)
        return True

    def set_idle(self, close: Close, *, was_answered: bool = False) -> None:
        """Note that no request of a connection is being answered.

        Args:
            was_answered: whether one was; it does not change while the connection is idle.
        """
        if close in self._network:
            self._idle.setdefault(self._network[close], {}).setdefault(close, was_answered)

    def set_busy(self, close: Close) -> None:
        """Note that a request of a connection is being answered: nobody displaces it."""
        network = self._network.get(close)
        if network is None:
            return
        idle = self._idle.get(network, {})
        idle.pop(close, None)
        if not idle:
            self._idle.pop(network, None)

    def remove(self, close: Close) -> None:
        """Forget a connection that has ended."""
        self.set_busy(close)
        self._network.pop(close, None)


def network_of(address: str) -> str:
    """The network whose addresses one host can have: of IPv6 the first 64 bits, of IPv4 the address itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)


# HTTP/1.1 as uvicorn speaks it, with patience that ends: whoever connects must say what they want

TAKE_SECONDS = 30.0
"""A client that takes less than about 100 KiB of its answer in so long is let go."""
LINGERING, LINGER_SECONDS = 50, 1.0
"""So many connections beyond the limit are kept for so long before they are ended."""
_CLOSE = b"Connection: close\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\n" + _CLOSE + b"\r\n"
_NO_HTTP = problem(400, "this is no HTTP/1.1, or a head beyond 16 KiB: send less in the address and the headers").body
_BAD = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nX-Content-Type-Options: nosniff\r\n"
    b"Connection: close\r\nContent-Length: %d\r\nCache-Control: no-store\r\n\r\n%s" % (len(_NO_HTTP), _NO_HTTP)
)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n" + _CLOSE + b"\r\n"


def protocol_with_timeouts(seconds: float, most: int, counters: Counters) -> type[asyncio.Protocol]:
    """The protocol of a server's connections.

    Args:
        seconds: in which the head of a request must have come, from when its first byte may.
        most: connections at a time.
    """
    limit = ConnectionLimit(most)
    lingering = set[asyncio.Protocol]()

    class Patient(H11Protocol):
        _patience: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, ABORT: transport.abort}
            if limit.add(self._displace, self.client[0] if self.client else ""):
                self._look()
            else:
                self._displace()

        def _displace(self) -> None:
            """End a connection for which there is no place, or not any more; not at once, if few are being ended.

            Whoever connects anew when it is ended would otherwise be ended and connect again without a pause.
            """
            counters.add("http_refused", reason="connections")
            if len(lingering) < LINGERING:
                lingering.add(self)
                self.loop.call_later(LINGER_SECONDS, self._refuse_connection)
            else:
                self._refuse_connection()

        def _refuse_connection(self) -> None:
            lingering.discard(self)
            if not self.transport.is_closing():
                self.transport.write(_FULL)
                self.transport.close()

        def on_response_complete(self) -> None:
            super().on_response_complete()  # which may begin to answer the next request
            if not self._is_answering():
                limit.set_busy(self._displace)  # it may have waited for a refusal
                limit.set_idle(self._displace, was_answered=True)

        def data_received(self, data: bytes) -> None:
            if self in lingering:
                return  # read all the same: the kernel answers a close before unread data with a reset
            super().data_received(data)
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            limit.remove(self._displace)
            lingering.discard(self)
            self._rest()
            self._take()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            """Begin to wait: the buffer is full, and is to be nearly empty (16 KiB) in time."""
            super().pause_writing()
            self._stuck = self.loop.call_later(TAKE_SECONDS, self._let_go)

        def resume_writing(self) -> None:
            self._take()
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            counters.add("http_refused", reason="no HTTP")
            if not self._is_answering():  # what has begun as an answer cannot become another
                self.transport.write(_BAD)
            self.transport.close()

        def _look(self) -> None:
            """Loses patience from now on, unless a request is under way, or patience is being lost already."""
            if self._is_answering():
                cast("dict[str, Any]", self.scope)[SET_DISPLACEABLE] = partial(limit.set_idle, self._displace)
                limit.set_busy(self._displace)
                self._rest()
                return
            limit.set_idle(self._displace)
            if self._patience is None and not self.transport.is_closing():
                self._patience = self.loop.call_later(seconds, self._give_up)

        def _rest(self) -> None:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None

        def _give_up(self) -> None:
            self._patience = None
            if self._is_answering() or self.transport.is_closing():
                return
            counters.add("http_refused", reason="slow head")
            self.transport.write(_LATE)
            self.transport.close()

        def _take(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _let_go(self) -> None:
            counters.add("http_refused", reason="slow reader")
            self.transport.abort()

        def _is_answering(self) -> bool:
            cycle: Any = self.cycle
            return cycle is not None and not cycle.response_complete

    return cast("type[asyncio.Protocol]", Patient)
