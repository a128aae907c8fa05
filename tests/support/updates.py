"""Updates that hypothesis makes up, and the tasks that they amount to by the plainest of folds."""

from __future__ import annotations

import itertools
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from agent_manager.agents.agent import ArtifactUpdate, Reply, StatusUpdate, TaskSnapshot, Update

Json = dict[str, Any]

TASKS = ["t1", "00000000-0000-4000-8000-000000000002", ""]
STATES = [
    "submitted", "working", "completed", "input-required", "canceled", "failed", "rejected", "auth-required", "unknown",
    "TASK_STATE_WORKING", "TASK_STATE_COMPLETED", "invented",
]  # fmt: skip

_numbers = itertools.count()
_tokens = st.builds(lambda: f"token-{next(_numbers)}-")
"""A text that stands nowhere else, so that it can be looked for."""
_objects = st.dictionaries(st.sampled_from(["x", "y"]), _tokens | st.lists(_tokens, max_size=2), max_size=2)
_parts = st.lists(st.fixed_dictionaries({"kind": st.just("text"), "text": _tokens}), max_size=3)
_contexts = st.none() | _tokens

_messages = st.fixed_dictionaries(
    {"parts": _parts, "messageId": _tokens | st.just("repeated")},
    optional={
        "kind": st.just("message"), "role": st.sampled_from(["agent", "user", "ROLE_AGENT", "boss"]),
        "contextId": _tokens, "taskId": _tokens, "metadata": _objects, "extensions": st.lists(_tokens, max_size=2),
    },
)  # fmt: skip
_statuses = st.fixed_dictionaries(
    {"state": st.sampled_from(STATES)}, optional={"message": _messages, "timestamp": _tokens, "mood": _tokens}
)
_artifacts = st.fixed_dictionaries(
    {"artifactId": st.sampled_from(["a", "b"]), "parts": _parts},
    optional={"name": _tokens, "description": _tokens, "metadata": _objects, "extensions": st.lists(_tokens)},
)
_tasks = st.fixed_dictionaries(
    {"id": st.sampled_from(TASKS), "status": _statuses},
    optional={
        "kind": st.just("task"), "contextId": _tokens, "metadata": _objects,
        "history": st.lists(_messages, max_size=2),
        "artifacts": st.lists(_artifacts, max_size=2, unique_by=lambda artifact: artifact["artifactId"]),
        "cost": _objects,
    },
)  # fmt: skip

updates: st.SearchStrategy[Update] = st.one_of(
    st.builds(Reply, _messages),
    st.builds(TaskSnapshot, _tasks),
    st.builds(
        StatusUpdate, st.sampled_from(TASKS), _contexts, _statuses, st.booleans(), st.none() | _objects,
        st.none() | st.fixed_dictionaries({"kind": st.just("status-update"), "later": _tokens}),
    ),
    st.builds(
        ArtifactUpdate, st.sampled_from(TASKS), _contexts, _artifacts, st.booleans(), st.none() | st.booleans(),
        st.none() | _objects, st.none() | st.fixed_dictionaries({"later": _tokens}),
    ),
)  # fmt: skip
"""Any update of an agent: in disorder, with the ids of other contexts, chunks without a first one."""


def tokens_of(value: Any) -> set[str]:
    """The tokens in a value."""
    if isinstance(value, str):
        return {value} if value.startswith("token-") else set()
    if isinstance(value, dict):
        return tokens_of(list(value.values()))
    if isinstance(value, list | tuple):
        return {token for item in value for token in tokens_of(item)}
    return set()


def folded(seen: list[Update]) -> dict[str, Json]:
    """Return the tasks after all updates, as JSON on the wire, with all chunks of their artifacts."""
    tasks: dict[str, Json] = {}
    for update in deepcopy(seen):
        match update:
            case TaskSnapshot(shown):
                task = tasks.setdefault(shown["id"], {"id": shown["id"]})
                rest = {name: value for name, value in shown.items() if name not in ("artifacts", "metadata")}
                if rest.keys() - {"id", "status"}:  # it tells something of the whole task: that is all there is now
                    for name in task.keys() - {"artifacts", "metadata"}:
                        del task[name]
                task |= rest
                if "metadata" in shown:
                    task["metadata"] = shown["metadata"]
                for artifact in shown.get("artifacts", []):
                    task.setdefault("artifacts", {})[artifact["artifactId"]] = artifact
            case StatusUpdate():
                _begun(tasks, update)["status"] = update.status
            case ArtifactUpdate(artifact=artifact):
                artifacts = _begun(tasks, update).setdefault("artifacts", {})
                known = artifacts.get(artifact["artifactId"]) if update.append else None
                artifacts[artifact["artifactId"]] = artifact if known is None else _appended(known, artifact)
    for task in tasks.values():
        if "artifacts" in task:
            task["artifacts"] = list(task["artifacts"].values())
    return tasks


def _begun(tasks: dict[str, Json], update: StatusUpdate | ArtifactUpdate) -> Json:
    if update.task_id not in tasks:
        context = {} if update.context_id is None else {"contextId": update.context_id}
        tasks[update.task_id] = {"id": update.task_id, "status": {"state": "submitted"}, **context}
    return tasks[update.task_id]


def _appended(known: Json, chunk: Json) -> Json:
    whole = {**chunk, **known, "parts": known["parts"] + chunk["parts"]}
    if "metadata" in known and "metadata" in chunk:
        whole["metadata"] = known["metadata"] | chunk["metadata"]
    return whole


_STEPS = st.sampled_from(["message", "lost message", "text", "part", "artifact", "state", "metadata", "member", "same"])


@st.composite
def growing_snapshots(draw: st.DrawFn) -> list[Json]:
    """A task as its agent shows it again and again while it works on it."""
    task: Json = {"id": "t", "status": {"state": "working"}, "history": [], "artifacts": []}
    shown = []
    for step in draw(st.lists(_STEPS, min_size=1, max_size=12)):
        artifacts, history = task["artifacts"], task["history"]
        match step:
            case "message":
                history.append(draw(_messages))
            case "lost message":
                task["history"] = history[1:]
            case "text" if artifacts and artifacts[-1]["parts"]:
                artifacts[-1]["parts"][-1]["text"] += draw(_tokens)
            case "part" if artifacts:
                artifacts[-1]["parts"].append({"kind": "text", "text": draw(_tokens), **draw(_named)})
            case "artifact" | "text" | "part":
                artifacts.append({"artifactId": str(len(artifacts)), "parts": draw(_parts)})
            case "state":
                task["status"] = draw(_statuses)
            case "metadata":
                task.setdefault("metadata", {})["x"] = draw(_tokens)
            case "member":
                task["cost"] = draw(_tokens)
        shown.append(deepcopy(task))
    return shown


_named = st.just({}) | st.builds(lambda token: {"metadata": {"name": token}}, _tokens)
