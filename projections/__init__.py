"""The read side: projections from the log to read tables, the worker that maintains the tables, and reading them."""

from eventstore import __version__ as __version__
from projections.apply import catch_up
from projections.cache import ConversationCache
from projections.comparison import Comparison
from projections.conversation_snapshot import Ancestor, ConversationState
from projections.custom_projections import PythonProjection, load_projections, projection
from projections.inline import InlineAppender
from projections.pages import Page, all_items
from projections.parked import Parked, Retried, read_parked, retry_parked
from projections.pausing import pause, read_paused, resume
from projections.projection import PROJECTIONS, Projection, select_projections
from projections.read_your_writes import applied_position, wait_for
from projections.reading import Reader, SyncReader
from projections.rebuild import RebuildProgress, Rebuilt, rebuild, undo_rebuild
from projections.rows import Conversation, Message, Task
from projections.search import Hit, Search, SearchPage
from projections.statistics import Statistics
from projections.status import Status, read_status
from projections.table_differences import TableDifference
from projections.verify import Verified, verify
from projections.worker import Worker

__all__ = [
    "PROJECTIONS",
    "Ancestor",
    "Comparison",
    "Conversation",
    "ConversationCache",
    "ConversationState",
    "Hit",
    "InlineAppender",
    "Message",
    "Page",
    "Parked",
    "Projection",
    "PythonProjection",
    "Reader",
    "RebuildProgress",
    "Rebuilt",
    "Retried",
    "Search",
    "SearchPage",
    "Statistics",
    "Status",
    "SyncReader",
    "TableDifference",
    "Task",
    "Verified",
    "Worker",
    "all_items",
    "applied_position",
    "catch_up",
    "load_projections",
    "pause",
    "projection",
    "read_parked",
    "read_paused",
    "read_status",
    "rebuild",
    "resume",
    "retry_parked",
    "select_projections",
    "undo_rebuild",
    "verify",
    "wait_for",
]
