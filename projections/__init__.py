"""The read side: projections from the log to read tables, the worker that maintains them, and reading them."""

from projections.checkpoints import applied_position, wait_for
from projections.projection import PROJECTIONS, Projection, named
from projections.reading import Conversation, Message, Reader, Task
from projections.status import Status, read_status
from projections.worker import Worker, catch_up, rebuild

__all__ = [
    "PROJECTIONS",
    "Conversation",
    "Message",
    "Projection",
    "Reader",
    "Status",
    "Task",
    "Worker",
    "applied_position",
    "catch_up",
    "named",
    "read_status",
    "rebuild",
    "wait_for",
]
