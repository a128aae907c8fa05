"""The peers by name: in which module each lives, and what has to be installed for it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from agent_manager.bench.figures import Target
from agent_manager.bench.peers.base import Peer, PeerMissing

EXTRA = "pip install 'flowagents-eventstore[bench]'"


@dataclass(frozen=True, slots=True)
class Known:
    """A peer that may be installed.

    Attributes:
        name: as it is shown; its module is the same with underscores.
        what: its call that is measured.
        packages: the distributions it needs.
        target: for the ratio at 16 callers; None where it is measured as information.
    """

    name: str
    what: str
    packages: tuple[str, ...]
    target: Target | None = None

    def make(self) -> Peer:
        """The peer, not yet open.

        Raises:
            PeerMissing: a package is missing.
        """
        module = f"agent_manager.bench.peers.{self.name.replace('-', '_')}"
        try:
            peer: Peer = importlib.import_module(module).make()
        except ImportError as error:
            raise PeerMissing(f"{error}: {EXTRA}") from error
        return peer


PEERS = (
    Known("eventsourcing", "PostgresApplicationRecorder.insert_events", ("eventsourcing",), Target(30)),
    Known("google-adk", "DatabaseSessionService.append_event", ("google-adk", "asyncpg"), Target(30)),
    Known("openai-agents", "SQLAlchemySession.add_items", ("openai-agents", "SQLAlchemy", "asyncpg"), Target(30)),
    Known("a2a-sdk", "DatabaseTaskStore.save", ("a2a-sdk", "SQLAlchemy", "asyncpg")),
    Known("langgraph", "AsyncPostgresSaver.aput", ("langgraph-checkpoint-postgres",)),
    Known("logicblocks", "EventStream.publish", ("logicblocks.event.store",)),
    Known("message-db", "write_message", ()),
)


def packages() -> tuple[str, ...]:
    """All distributions that the peers need, each once."""
    return tuple(dict.fromkeys(package for known in PEERS for package in known.packages))
