"""What an agent is sent names the conversation that it was sent in, and no other.

An agent keeps what it was told by ``contextId`` and ``taskId``, and serves whoever names them. Who writes a message
writes those too: by the ids of somebody else's conversation they would be answered out of that one, behind every wall
of the store. What is stored stays as it was written; what the agent is sent is put right here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from uuid import UUID

from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.views import Accepted, Json
from eventstore import conversation_uuid


def addressed(accepted: Accepted, tenant: str, fold: ConversationFold | None) -> Accepted:
    """The message as its agent may be sent it.

    Args:
        fold: the conversation, whose tasks may be named.
    """
    tasks = frozenset() if fold is None else frozenset(task.given_id for task in fold.tasks.values())
    name = _own(accepted.conversation_id, tenant, accepted.conversation) or str(accepted.conversation)
    task_id = accepted.task_id if accepted.task_id in tasks else None
    return replace(accepted, conversation_id=name, task_id=task_id, message=_message(accepted, name, tenant, tasks))


def _message(accepted: Accepted, name: str, tenant: str, tasks: Collection[str]) -> Json:
    message = dict(accepted.message)
    others = message.get("referenceTaskIds")
    if isinstance(others, list):
        message["referenceTaskIds"] = [task for task in others if isinstance(task, str) and task in tasks]
    if message.get("taskId") not in tasks:
        message.pop("taskId", None)
    context = message.get("contextId")
    # Who names a task says of which conversation it is, so that an agent can tell that it is of another.
    if message.get("taskId") or message.get("referenceTaskIds") or context:
        message["contextId"] = _own(context, tenant, accepted.conversation) or name
    return message


def _own(text: object, tenant: str, conversation: UUID) -> str | None:
    """The text, where it names the conversation."""
    return text if isinstance(text, str) and text and conversation_uuid(tenant, text) == conversation else None
