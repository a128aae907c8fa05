"""The log: an append-only, event-sourced store of conversations in PostgreSQL."""

from eventstore.append import Append
from eventstore.scope import Caller
from eventstore.database.settings import Settings
from eventstore.vocabulary import EventData
from eventstore.vocabulary import Role
from eventstore.vocabulary import TaskStatus
from eventstore.events import ANY
from eventstore.events import EXISTS
from eventstore.events import NO_STREAM
from eventstore.events import Appended
from eventstore.events import AppendResult
from eventstore.events import Event
from eventstore.events import ExpectedVersion
from eventstore.events import Metadata
from eventstore.events import NewEvent
from eventstore.ids import IdAssigner
from eventstore.ids import conversation_uuid
from eventstore.message_format import message_from_sent
from eventstore.message_format import sent_message
from eventstore.store import EventStore
from eventstore.sync import SyncEventStore
from eventstore.vocabulary import AgentRegistered
from eventstore.vocabulary import AgentUnregistered
from eventstore.vocabulary import ApplicationEvent
from eventstore.vocabulary import ConversationArchived
from eventstore.vocabulary import ConversationCreated
from eventstore.vocabulary import ConversationDeleted
from eventstore.vocabulary import ConversationForked
from eventstore.vocabulary import ConversationReactivated
from eventstore.vocabulary import ConversationRenamed
from eventstore.vocabulary import ConversationShared
from eventstore.vocabulary import ConversationUnshared
from eventstore.vocabulary import MessageAdded
from eventstore.vocabulary import MessageAnswered
from eventstore.vocabulary import TaskArtifactAdded
from eventstore.vocabulary import TaskArtifactExtended
from eventstore.vocabulary import TaskCreated
from eventstore.vocabulary import TaskDescribed
from eventstore.vocabulary import TaskStatusChanged
from eventstore.vocabulary import UnknownEvent

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
    "ConversationForked",
    "ConversationReactivated",
    "ConversationRenamed",
    "ConversationShared",
    "ConversationUnshared",
    "Event",
    "EventData",
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
    "TaskCreated",
    "TaskDescribed",
    "TaskStatus",
    "TaskStatusChanged",
    "UnknownEvent",
    "conversation_uuid",
    "message_from_sent",
    "sent_message",
]
