"""Which connections a server keeps when it has as many as it may: those being answered, and some of each network.

A connection costs a client nothing until it has sent a request, so one address can open all there are and send half a
head on each. Until the server is full, everybody may have as many connections as they like. When it is full, a new
connection takes the place of the oldest idle one of the network that has most of them. So nobody who opens thousands of
connections shuts out another network.

Behind a proxy all share one network. So a new connection takes a place of its own network, too, if that has most: of
the oldest on which no request was answered yet, or of one that waits for a refusal. Whoever sends a request at once is
answered long before theirs is the oldest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

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
