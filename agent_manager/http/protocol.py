"""HTTP/1.1 as uvicorn speaks it, with patience that ends: whoever connects must say what they want.

uvicorn closes a connection that is idle after an answer, and waits for ever for a first request, for the rest of a head
that comes byte by byte, or for a client that takes nothing of its answer. So a few thousand connections, which cost a
client nothing, would hold all there are.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_manager.http.connections import SET_DISPLACEABLE, ConnectionLimit
from agent_manager.http.counting import Counters
from agent_manager.http.deadline import ABORT
from agent_manager.http.problems import problem

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


def patient_protocol(seconds: float, most: int, counters: Counters) -> type[asyncio.Protocol]:
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
