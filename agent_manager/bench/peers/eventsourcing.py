"""``eventsourcing``: its application recorder, which orders the log by locking the table.

It is synchronous, so each caller is a thread. Encoding the state is part of the append, as its transcoder's work is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from psycopg.conninfo import conninfo_to_dict

from agent_manager.bench.messages import Message
from agent_manager.bench.place import Place
from agent_manager.bench.rates import drive_threads

_TOPIC = "conversations:Conversation.MessageAdded"


class EventSourcing:
    """The recorder with a pool of its own."""

    async def open(self, place: Place, schema: str, connections: int) -> None:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        given: dict[str, Any] = conninfo_to_dict(place.url)
        self._datastore = PostgresDatastore(
            given["dbname"], given.get("host", ""), given.get("port", 5432), given.get("user", ""),
            given.get("password", ""), pool_size=connections, connect_timeout=60, schema=schema,
        )  # fmt: skip
        self.recorder = PostgresApplicationRecorder(self._datastore, events_table_name="stored_events")
        self.recorder.create_table()

    async def begin(self, messages: Sequence[Message]) -> None:
        """Nothing: a stream begins with its first event."""

    def prepared(self, message: Message) -> tuple[Message, dict[str, Any]]:
        """The message and what becomes its state."""
        return message, {"role": message.role, "actor": message.actor, "content": message.text}

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> float:
        """See :class:`agent_manager.bench.peers.base.Peer`."""
        return await drive_threads(plan, lambda _, given: self.append([given]), seconds)

    def append(self, given: Sequence[tuple[Message, dict[str, Any]]]) -> None:
        """Inserts events."""
        self.recorder.insert_events([
            StoredEvent(message.conversation_id, message.version, _TOPIC, json.dumps(state).encode())
            for message, state in given
        ])  # fmt: skip

    def read(self, section: int) -> Iterator[Any]:
        """All notifications, read in sections of that size."""
        start = 1
        while found := self.recorder.select_notifications(start, section):
            yield from found
            start = found[-1].id + 1

    async def close(self) -> None:
        """Closes the pool."""
        self._datastore.close()


make = EventSourcing
