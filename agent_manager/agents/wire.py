"""The words of A2A 0.3 and 1.x on the wire, and what is stored for them.

0.3 is told by ``kind``, by small states and roles (``working``, ``agent``); 1.x is JSON of protobuf and names them in
capitals (``TASK_STATE_WORKING``, ``ROLE_AGENT``). All else is named alike in both, in camelCase; parts differ, see
:mod:`~agent_manager.agents.shapes`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from eventstore.eventdata import TaskStatus

Json: TypeAlias = dict[str, Any]
Shape: TypeAlias = Literal["0.3", "1.0"]

RESERVED = "eventstore:"
"""Ids of conversations that begin so are the manager's own; no client may give one."""

STATE_WORDS: dict[TaskStatus, dict[Shape, str]] = {
    TaskStatus.PENDING: {"0.3": "submitted", "1.0": "TASK_STATE_SUBMITTED"},
    TaskStatus.IN_PROGRESS: {"0.3": "working", "1.0": "TASK_STATE_WORKING"},
    TaskStatus.COMPLETED: {"0.3": "completed", "1.0": "TASK_STATE_COMPLETED"},
    TaskStatus.INPUT_REQUIRED: {"0.3": "input-required", "1.0": "TASK_STATE_INPUT_REQUIRED"},
    TaskStatus.AUTH_REQUIRED: {"0.3": "auth-required", "1.0": "TASK_STATE_AUTH_REQUIRED"},
    TaskStatus.CANCELED: {"0.3": "canceled", "1.0": "TASK_STATE_CANCELED"},
    TaskStatus.FAILED: {"0.3": "failed", "1.0": "TASK_STATE_FAILED"},
    TaskStatus.REJECTED: {"0.3": "rejected", "1.0": "TASK_STATE_REJECTED"},
    TaskStatus.UNKNOWN: {"0.3": "unknown", "1.0": "TASK_STATE_UNSPECIFIED"},
}
"""How each shape writes a task's state."""

FINAL = frozenset((TaskStatus.COMPLETED, TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.REJECTED))
"""Nothing happens to a task after these."""

OPEN = frozenset((TaskStatus.PENDING, TaskStatus.IN_PROGRESS))
"""The agent goes on by itself in these; in all others it is done or waits for somebody."""

_WORDS = {word: status for status, words in STATE_WORDS.items() for word in words.values()}
_SPELLINGS = {
    "SUBMITTED": TaskStatus.PENDING, "PENDING": TaskStatus.PENDING, "1": TaskStatus.PENDING,
    "WORKING": TaskStatus.IN_PROGRESS, "INPROGRESS": TaskStatus.IN_PROGRESS, "2": TaskStatus.IN_PROGRESS,
    "COMPLETED": TaskStatus.COMPLETED, "3": TaskStatus.COMPLETED,
    "FAILED": TaskStatus.FAILED, "4": TaskStatus.FAILED,
    "CANCELED": TaskStatus.CANCELED, "CANCELLED": TaskStatus.CANCELED, "5": TaskStatus.CANCELED,
    "INPUTREQUIRED": TaskStatus.INPUT_REQUIRED, "6": TaskStatus.INPUT_REQUIRED,
    "REJECTED": TaskStatus.REJECTED, "7": TaskStatus.REJECTED,
    "AUTHREQUIRED": TaskStatus.AUTH_REQUIRED, "8": TaskStatus.AUTH_REQUIRED,
    "UNKNOWN": TaskStatus.UNKNOWN, "UNSPECIFIED": TaskStatus.UNKNOWN, "0": TaskStatus.UNKNOWN,
}  # fmt: skip
"""Other spellings of the states, in capitals and without separators. JSON of protobuf may hold the numbers of the enum,
which are the same in 0.3 and 1.x; the enum of 0.3 spells ``TASK_STATE_CANCELLED``."""
_USER: dict[Shape, str] = {"0.3": "user", "1.0": "ROLE_USER"}
_AGENT: dict[Shape, str] = {"0.3": "agent", "1.0": "ROLE_AGENT"}
_ROLE_WORDS = {word: words for words in (_USER, _AGENT) for word in words.values()}


def known_status(state: Any) -> TaskStatus | None:
    """Return the status that is stored for a state, in any of its spellings; None if it is none of A2A."""
    if isinstance(state, bool) or not isinstance(state, str | int):
        return None
    if state in _WORDS:
        return _WORDS[str(state)]
    if isinstance(state, int):
        return _SPELLINGS.get(str(state))
    letters = state.upper().replace("_", "").replace("-", "").replace(" ", "")
    return _SPELLINGS.get(letters.removeprefix("TASKSTATE")) if state[:1].isalnum() else None


def status_of(state: Any) -> TaskStatus:
    """Return the status that is stored for a state; ``unknown`` for a value that is none of A2A."""
    return known_status(state) or TaskStatus.UNKNOWN


def state_word(status: TaskStatus | str, shape: Shape) -> str:
    """How a shape writes a status."""
    return STATE_WORDS[TaskStatus(status)][shape]


def state_in_shape(state: Any, shape: Shape) -> Any:
    """Return a state in the word of a shape; a value that is no state of A2A stays."""
    status = known_status(state)
    return state if status is None else state_word(status, shape)


def readable_state(state: Any) -> Any:
    """Return a state in a word that clients know: as it is if it is one of either shape."""
    is_proto = isinstance(state, int) or str(state).upper().startswith("TASK")
    return state if isinstance(state, str) and state in _WORDS else state_in_shape(state, "1.0" if is_proto else "0.3")


def role_in_shape(role: Any, shape: Shape) -> Any:
    """A role of either shape in the words of one; a word of neither stays."""
    return _ROLE_WORDS[role][shape] if isinstance(role, str) and role in _ROLE_WORDS else role


def agent_role(shape: Shape) -> str:
    """How a shape calls the agent's role."""
    return _AGENT[shape]


def shape_of(sent: Json) -> Shape:
    """Which shape a message, task or update has; 0.3 where nothing tells."""
    if "kind" in sent:
        return "0.3"
    status = sent.get("status")
    words = (sent.get("role"), status.get("state") if isinstance(status, dict) else None)
    if any(isinstance(word, int) or str(word).upper().startswith(("ROLE_", "TASK_STATE_")) for word in words):
        return "1.0"
    parts = sent.get("parts")
    if isinstance(parts, list) and parts and all(isinstance(part, dict) and "kind" not in part for part in parts):
        return "0.3" if sent.get("role") in list(_ROLE_WORDS) else "1.0"
    return "0.3"


def parts_text(parts: Any) -> str:
    """The text of a message's or artifact's parts, a line each; empty where they have none."""
    if not isinstance(parts, list):
        return ""
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
