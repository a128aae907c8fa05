"""What a developer could take instead, one small file each; what is not installed is left out, and said so."""

from agent_manager.bench.peers.base import Peer, PeerMissing
from agent_manager.bench.peers.known import PEERS, Known, packages

__all__ = ["PEERS", "Known", "Peer", "PeerMissing", "packages"]
