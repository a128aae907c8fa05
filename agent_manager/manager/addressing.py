"""What an agent is sent names the conversation that it was sent in, and no other.

An agent keeps conversations by ``contextId`` and ``taskId``, and serves every client that names them. Both are part of
a message, so its author could name another conversation and be answered out of that one, past every check of the
store. What is stored stays as it was written; the ids in what the agent is sent are set here.

Every message carries the conversation's name as its ``contextId``: without one an agent begins a new context. An agent
that has named a context of its own is sent that instead, see :meth:`agent_manager.agents.answering.Context.sent`. A
message without ``messageId``, which A2A demands, is sent with the id of its event.
"""

from __future__ import annotations

from dataclasses import replace

from agent_manager.manager.folding import ConversationFold
from agent_manager.manager.views import Accepted


def addressed(accepted: Accepted, fold: ConversationFold) -> Accepted:
    """Return the message as its agent may be sent it.

    Args:
        fold: the conversation, whose tasks may be named.
    """
    tasks = {task.given_id for task in fold.tasks.values()}
    message = accepted.message | {"contextId": fold.given_id}
    if not message.get("messageId"):
        message["messageId"] = str(accepted.event_id)
    if message.get("taskId") not in tasks:
        message.pop("taskId", None)
    others = message.get("referenceTaskIds")
    if isinstance(others, list):
        message["referenceTaskIds"] = [task for task in others if isinstance(task, str) and task in tasks]
    task_id = accepted.task_id if accepted.task_id in tasks else None
    return replace(accepted, conversation_id=fold.given_id, task_id=task_id, message=message)
