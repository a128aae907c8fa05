"""A network between this process and a server that can lose packets; needs root, iproute2 and nftables."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest

_PROGRAMS = ("ip", "nft", "setpriv")
_NUMBERS = count(1)  # a namespace goes a while after its deletion
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

LOSSES = {
    "requests": "hook input",
    "replies": "hook output",
    "replies, but no acknowledgements": "hook output",
}
"""The packets that can be lost, and the hook of the server's side that drops them."""


class Network:
    """A namespace of the kernel for the server, with a virtual cable to this process.

    Attributes:
        address: the server's address.
        inside: the words before a command that runs in the namespace.
    """

    def __init__(self) -> None:
        number = (os.getpid() + next(_NUMBERS)) % 2**14 * 4
        self._name = f"eventstore-{number}"
        self._cable = f"es{number}"
        self._own, self.address = (f"10.231.{number // 256}.{number % 256 + n}" for n in (1, 2))
        self.inside = ["ip", "netns", "exec", self._name]

    def open(self) -> None:
        """Create it; the test is skipped if this process may not."""
        if os.geteuid() or not all(shutil.which(program, path=_PATH) for program in _PROGRAMS):
            pytest.skip(f"needs root and the programs {', '.join(_PROGRAMS)}")
        try:
            _run("ip", "netns", "add", self._name)
        except RuntimeError as error:
            pytest.skip(f"no network namespaces here: {error}")
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _run("ip", "address", "add", f"{self._own}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run(*self.inside, "ip", "address", "add", f"{self.address}/30", "dev", "eth0")
        _run(*self.inside, "ip", "link", "set", "eth0", "up")

    def close(self) -> None:
        """Remove it."""
        subprocess.run(["ip", "netns", "delete", self._name], capture_output=True, check=False, env={"PATH": _PATH})

    def lose(self, what: str) -> None:
        """Drop packets silently from now on, on all present and future connections; see :data:`LOSSES`."""
        rule = "tcp flags & psh == psh drop" if "acknowledgements" in what else "drop"
        _run(*self.inside, "nft", "add table inet loss")
        _run(*self.inside, "nft", f"add chain inet loss drops {{ type filter {LOSSES[what]} priority 0; }}")
        _run(*self.inside, "nft", f"add rule inet loss drops {rule}")

    def restore(self) -> None:
        """Deliver everything again."""
        _run(*self.inside, "nft", "delete table inet loss")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": _PATH})
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")


@contextmanager
def lossy_network() -> Iterator[Network]:
    """A network that exists until the end of the block."""
    network = Network()
    network.open()
    try:
        yield network
    finally:
        network.close()
