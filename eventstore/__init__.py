"""The log: an append-only, event-sourced store of conversations in PostgreSQL."""

from eventstore.append import Append
from eventstore.erasure import Erasure
from eventstore.event_types import (
    AgentRegistered,
    AgentUnregistered,
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationErased,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationRewound,
    ConversationShared,
    ConversationUnshared,
    EventData,
    EventErased,
    MessageAdded,
    MessageAnswered,
    Role,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCancelRequested,
    TaskCreated,
    TaskDeleted,
    TaskDescribed,
    TaskPushNotificationDeleted,
    TaskPushNotificationSet,
    TaskStatus,
    TaskStatusChanged,
    UnknownEvent,
)
from eventstore.events import ANY, EXISTS, NO_STREAM, Appended, AppendResult, Event, ExpectedVersion, Metadata, NewEvent
from eventstore.ids import IdAssigner, conversation_uuid
from eventstore.message_format import message_from_sent, sent_message
from eventstore.scope import Caller
from eventstore.settings import Settings
from eventstore.store import EventStore
from eventstore.sync import SyncEventStore
from eventstore.times import parse_time

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "EXISTS",
    "NO_STREAM",
    "AgentRegistered",
    "AgentUnregistered",
    "Append",
    "AppendResult",
    "Appended",
    "ApplicationEvent",
    "Caller",
    "ConversationArchived",
    "ConversationCreated",
    "ConversationDeleted",
    "ConversationErased",
    "ConversationForked",
    "ConversationReactivated",
    "ConversationRenamed",
    "ConversationRewound",
    "ConversationShared",
    "ConversationUnshared",
    "Erasure",
    "Event",
    "EventData",
    "EventErased",
    "EventStore",
    "ExpectedVersion",
    "IdAssigner",
    "MessageAdded",
    "MessageAnswered",
    "Metadata",
    "NewEvent",
    "Role",
    "Settings",
    "SyncEventStore",
    "TaskArtifactAdded",
    "TaskArtifactExtended",
    "TaskCancelRequested",
    "TaskCreated",
    "TaskDeleted",
    "TaskDescribed",
    "TaskPushNotificationDeleted",
    "TaskPushNotificationSet",
    "TaskStatus",
    "TaskStatusChanged",
    "UnknownEvent",
    "conversation_uuid",
    "message_from_sent",
    "parse_time",
    "sent_message",
]
