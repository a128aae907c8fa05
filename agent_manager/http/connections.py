"""Which connections a server keeps when it has as many as it may: those being answered, and some of each network.

A connection costs a client nothing until it has sent a request, so one address can open all there are and send half a
head on each. Until the server is full, everybody may have as many connections as they like. When it is full, a new
connection takes the place of the oldest idle one of the network that has most of them. A network that has as many as
any other is refused. So nobody who opens thousands of connections shuts out another network.
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
        self._idle: dict[str, dict[Close, None]] = {}

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
            if len(self._idle.get(greediest, ())) <= len(self._idle.get(network, ())):
                return False
            displaced = next(iter(self._idle[greediest]))
            self.remove(displaced)
            displaced()
        self._network[close] = network
        self.set_idle(close)
        return True

    def set_idle(self, close: Close) -> None:
        """Note that no request of a connection is being answered."""
        if close in self._network:
            self._idle.setdefault(self._network[close], {}).setdefault(close)

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
