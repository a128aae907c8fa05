"""``eventsourcing``: its application recorder, which orders the log by locking the table, and its projection runner.

The recorder is synchronous, so each caller is a thread. Encoding the state is part of the append, as it is the work of
its transcoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import StoredEvent, Tracking
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore, PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from eventstore.errors import ServerError
from tools.benchmark.measurement import Rate, drive_threads
from tools.benchmark.messages import Message
from tools.benchmark.peers import Peer
from tools.benchmark.workspace import Workspace

_TOPIC = "conversations:Conversation.MessageAdded"
_MAX_SECONDS = 300.0


class EventSourcing(Peer):
    """The recorder with a pool of its own."""

    stored = "SELECT count(*) FROM stored_events"

    async def open(self, workspace: Workspace, schema: str, connections: int) -> None:
        given: dict[str, Any] = conninfo_to_dict(workspace.url)
        self._datastore = PostgresDatastore(
            given["dbname"], given.get("host", ""), given.get("port", 5432), given.get("user", ""),
            given.get("password", ""), pool_size=connections, connect_timeout=60, schema=schema,
        )  # fmt: skip
        self._recorder = PostgresApplicationRecorder(self._datastore, events_table_name="stored_events")
        self._recorder.create_table()

    def prepare(self, message: Message) -> tuple[Message, dict[str, Any]]:
        return message, {"role": message.role, "actor": message.actor, "content": message.text}

    async def drive(self, plan: Sequence[Sequence[Any]], seconds: float) -> Rate:
        return await drive_threads(plan, lambda _, given: self.insert([given]), seconds)

    def insert(self, given: Sequence[tuple[Message, dict[str, Any]]]) -> None:
        """Insert events."""
        self._recorder.insert_events([
            StoredEvent(message.conversation_id, message.version, _TOPIC, json.dumps(state).encode())
            for message, state in given
        ])  # fmt: skip

    def read(self, section: int) -> Iterator[Any]:
        """Yield all notifications, read in sections of this size."""
        start = 1
        while found := self._recorder.select_notifications(start, section):
            yield from found
            start = found[-1].id + 1

    async def close(self) -> None:
        self._datastore.close()


peer = EventSourcing


class Conversation(Aggregate):
    """A conversation: a beginning and messages."""

    @event("MessageAdded")
    def add(self, role: str, actor: str, text: str) -> None:
        """Add a message."""


class Conversations(Application):
    """The application whose log is projected."""


class MessagesView(PostgresTrackingRecorder):
    """The read table, with a row for each message."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        table = sql.Identifier(self.datastore.schema, f"rows_{self.tracking_table_name}")
        self.sql_create_statements.append(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (conversation_id uuid, version integer, role text, actor text, "
                "content text, PRIMARY KEY (conversation_id, version))"
            ).format(table)
        )
        self._insert = sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s)").format(table)
        self._count = sql.SQL("SELECT count(*) AS rows FROM {}").format(table)

    def insert(self, row: tuple[Any, ...], tracking: Tracking) -> None:
        """Insert a row and the position in one transaction."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._insert, row, prepare=True)

    def rows(self) -> int:
        """Return the number of rows."""
        with self.datastore.transaction(commit=False) as cursor:
            cursor.execute(self._count)
            row: Any = cursor.fetchone()
            return int(row["rows"])


class Messages(Projection[MessagesView]):
    """A projection that applies messages and skips other events."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Apply one event."""
        if isinstance(domain_event, Conversation.MessageAdded):
            given: Any = domain_event
            row = (given.originator_id, given.originator_version, given.role, given.actor, given.text)
            self.view.insert(row, tracking)
        else:
            self.view.insert_tracking(tracking)


@contextmanager
def filled_application(
    workspace: Workspace, schema: str, conversations: Sequence[Sequence[Message]]
) -> Iterator[dict[str, str]]:
    """Fill a log with these messages, and yield the environment that names it."""
    given: dict[str, Any] = conninfo_to_dict(workspace.url)
    environment = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": given["dbname"],
        "POSTGRES_HOST": given.get("host", ""),
        "POSTGRES_PORT": str(given.get("port", 5432)),
        "POSTGRES_USER": given.get("user", ""),
        "POSTGRES_PASSWORD": given.get("password", ""),
        "POSTGRES_SCHEMA": schema,
    }
    application = Conversations(environment)
    try:
        for messages in conversations:
            conversation = Conversation()
            for message in messages:
                conversation.add(message.role, message.actor, message.text)
            application.save(conversation)
        yield environment
    finally:
        application.close()


def project(environment: dict[str, str], messages: int) -> float:
    """Return the events per second until a new view has the whole log, and so many messages as rows."""
    Messages.name = f"Messages{perf_counter():.9f}".replace(".", "_")  # names the view's tables
    with ProjectionRunner(
        application_class=Conversations, projection_class=Messages, view_class=MessagesView, env=environment
    ) as runner:
        last = runner.app.recorder.max_notification_id()
        assert last is not None
        began = perf_counter()
        runner.wait(last, _MAX_SECONDS)
        seconds = perf_counter() - began
        if (rows := runner.projection.view.rows()) != messages:
            raise ServerError(f"the view has {rows:,} of {messages:,} messages: the figure is void")
        return float(last / seconds)
