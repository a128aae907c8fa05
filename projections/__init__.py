"""The read side: projections from the log to read tables, the worker that maintains them, and reading them."""

from projections.cache import ConversationCache
from projections.checkpoints import applied_position
from projections.checkpoints import wait_for
from projections.compare import Difference
from projections.inline import InlineAppender
from projections.custom_projections import PythonProjection
from projections.custom_projections import load
from projections.custom_projections import projection
from projections.pages import Page
from projections.pages import every
from projections.parking import Parked
from projections.parking import parked
from projections.projection import PROJECTIONS
from projections.projection import Projection
from projections.projection import named
from projections.reading import Reader
from projections.rebuild import Rebuild
from projections.rebuild import RebuildProgress
from projections.rebuild import Rebuilt
from projections.rebuild import rebuild
from projections.rebuild import undo
from projections.retry_parked import Retried
from projections.retry_parked import retry
from projections.rows import Conversation
from projections.rows import Message
from projections.rows import Task
from projections.search import Hit
from projections.search import Search
from projections.search import SearchPage
from projections.conversation_snapshot import ConversationState
from projections.statistics import Statistics
from projections.status import Status
from projections.status import read_status
from projections.reading import SyncReader
from projections.verify import Verified
from projections.verify import verify
from projections.worker import Worker
from projections.worker import catch_up

__all__ = [
    "PROJECTIONS",
    "Conversation",
    "ConversationCache",
    "ConversationState",
    "Difference",
    "Hit",
    "InlineAppender",
    "Message",
    "Page",
    "Parked",
    "Projection",
    "PythonProjection",
    "Reader",
    "Rebuild",
    "RebuildProgress",
    "Rebuilt",
    "Retried",
    "Search",
    "SearchPage",
    "Statistics",
    "Status",
    "SyncReader",
    "Task",
    "Verified",
    "Worker",
    "applied_position",
    "catch_up",
    "every",
    "load",
    "named",
    "parked",
    "projection",
    "read_status",
    "rebuild",
    "retry",
    "undo",
    "verify",
    "wait_for",
]
