"""``eventsourcing``'s projection runner, with a view by its tracking recorder: a row for each message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from agent_manager.bench.messages import Message
from agent_manager.bench.place import Place

_LONGEST_SECONDS = 300.0


class Conversation(Aggregate):
    """Begins, and has messages."""

    @event("MessageAdded")
    def add(self, role: str, actor: str, text: str) -> None:
        """A message."""


class Conversations(Application):
    """The log."""


class MessagesView(PostgresTrackingRecorder):
    """The read table."""

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

    def insert(self, row: tuple[Any, ...], tracking: Tracking) -> None:
        """A row and the position, in one transaction."""
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            cursor.execute(self._insert, row, prepare=True)


class Messages(Projection[MessagesView]):
    """Reads messages, and passes over what else there is."""

    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        """Applies one event."""
        if isinstance(domain_event, Conversation.MessageAdded):
            given: Any = domain_event
            row = (given.originator_id, given.originator_version, given.role, given.actor, given.text)
            self.view.insert(row, tracking)
        else:
            self.view.insert_tracking(tracking)


@contextmanager
def filled(place: Place, schema: str, conversations: Sequence[Sequence[Message]]) -> Iterator[dict[str, str]]:
    """A log with these messages: the environment that names it."""
    given: dict[str, Any] = conninfo_to_dict(place.url)
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


def project(environment: dict[str, str]) -> float:
    """Events a second until the view, which is new, has the whole log."""
    Messages.name = f"Messages{perf_counter():.9f}".replace(".", "_")  # names the view's tables
    with ProjectionRunner(
        application_class=Conversations, projection_class=Messages, view_class=MessagesView, env=environment
    ) as runner:
        last = runner.app.recorder.max_notification_id()
        assert last is not None
        began = perf_counter()
        runner.wait(last, _LONGEST_SECONDS)
        return float(last / (perf_counter() - began))
