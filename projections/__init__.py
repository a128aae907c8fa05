"""The read side: projections from the log to read tables, the worker that maintains them, and reading them."""

from projections.checkpoints import applied_position, wait_for
from projections.compare import Difference
from projections.inline import InlineAppender
from projections.own import PythonProjection, load, projection
from projections.parking import Parked, parked
from projections.projection import PROJECTIONS, Projection, named
from projections.reading import Conversation, Message, Reader, Task
from projections.rebuild import Rebuild, RebuildProgress, Rebuilt, rebuild, undo
from projections.retrying import Retried, retry
from projections.search import Hit, Search, SearchPage
from projections.statistics import Statistics
from projections.status import Status, read_status
from projections.verify import Verified, verify
from projections.worker import Worker, catch_up

__all__ = [
    "PROJECTIONS",
    "Conversation",
    "Difference",
    "Hit",
    "InlineAppender",
    "Message",
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
    "Task",
    "Verified",
    "Worker",
    "applied_position",
    "catch_up",
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
