"""What an event changed, in a line."""

from __future__ import annotations

import json

from eventstore import (
    ApplicationEvent,
    ConversationArchived,
    ConversationCreated,
    ConversationDeleted,
    ConversationForked,
    ConversationReactivated,
    ConversationRenamed,
    ConversationShared,
    ConversationUnshared,
    Event,
    MessageAdded,
    TaskArtifactAdded,
    TaskArtifactExtended,
    TaskCreated,
    TaskDescribed,
    TaskStatusChanged,
)

LONGEST = 200
"""Characters; a longer text is cut."""


def what_changed(event: Event) -> str:
    """The change that an event made, for people."""
    line = " ".join(_describe(event).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _describe(event: Event) -> str:
    match event.data:
        case ConversationCreated(name=name):
            return f"created as {name!r}" if name else "created"
        case ConversationRenamed(name=name):
            return f"renamed to {name!r}"
        case ConversationArchived():
            return "archived"
        case ConversationReactivated():
            return "reactivated"
        case ConversationDeleted():
            return "hidden"
        case ConversationForked(source_conversation_id=source, source_version=version):
            return f"continues {source} from version {version}"
        case ConversationShared(user=user, access=access):
            return f"shared with {user!r} to {access}"
        case ConversationUnshared(user=user):
            return f"no longer shared with {user!r}"
        case MessageAdded() as message:
            return f"{message.role}: {_text(message)}"
        case TaskCreated(description=description, status=status, task_id=task):
            return f"task {task} {status}: {description}"
        case TaskStatusChanged(status=status, task_id=task):
            return f"task {task} is {status}"
        case TaskDescribed(description=description, task_id=task):
            return f"task {task}: {description}" if description is not None else f"task {task} has more to it"
        case TaskArtifactAdded(artifact_id=artifact, task_id=task):
            return f"task {task} has artifact {artifact!r}"
        case TaskArtifactExtended(artifact_id=artifact, task_id=task):
            return f"task {task} extends artifact {artifact!r}"
        case ApplicationEvent(content=content):
            return json.dumps(content, ensure_ascii=False)
        case _:
            return json.dumps(event.content, ensure_ascii=False)


def _text(message: MessageAdded) -> str:
    if message.content is not None:
        return message.content
    rest = {"parts": message.parts} if message.parts is not None else message.extra or {}
    return json.dumps(rest, ensure_ascii=False)
