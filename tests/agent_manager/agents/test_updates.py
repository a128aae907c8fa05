"""Updates are parsed from JSON of either version; other JSON is rejected, with the path of the wrong member."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from agent_manager.a2a import STATE_NAMES, readable_state, status_of
from agent_manager.agents.agent import MAX_BYTES, ArtifactUpdate, Reply, StatusUpdate, TaskSnapshot, TaskTracker, Update
from agent_manager.agents.local import from_callable
from agent_manager.agents.recorder import Recording
from agent_manager.agents.updates import checked_update, update_from_wire
from agent_manager.errors import AgentRefused, AnswerFailed, InvalidUpdate
from agent_manager.manager import Manager
from agent_manager.memory_log import MemoryLog
from eventstore import NewEvent

pytestmark = pytest.mark.any_server

MESSAGE = {"role": "agent", "messageId": "m", "parts": []}
TASK = {"id": "t", "status": {"state": "working"}}
STATUS = {"taskId": "t", "contextId": "c", "status": {"state": "working"}, "metadata": {"x": 1}}
ARTIFACT = {"taskId": "t", "artifact": {"artifactId": "a", "parts": []}}


@pytest.mark.parametrize(
    ("sent", "update"),
    [
        (MESSAGE, Reply(MESSAGE)),
        ({"message": MESSAGE}, Reply(MESSAGE)),
        (MESSAGE | {"kind": "message"}, Reply(MESSAGE | {"kind": "message"})),
        (TASK, TaskSnapshot(TASK)),
        ({"task": TASK}, TaskSnapshot(TASK)),
        ({"kind": "task", "id": "t"}, TaskSnapshot({"kind": "task", "id": "t"})),
        (STATUS, StatusUpdate("t", "c", {"state": "working"}, False, {"x": 1})),
        ({"statusUpdate": STATUS}, StatusUpdate("t", "c", {"state": "working"}, False, {"x": 1})),
        (
            STATUS | {"kind": "status-update", "final": True},
            StatusUpdate("t", "c", {"state": "working"}, True, {"x": 1}, {"kind": "status-update"}),
        ),
        (ARTIFACT, ArtifactUpdate("t", None, {"artifactId": "a", "parts": []})),
        (
            {"artifactUpdate": ARTIFACT | {"append": True, "lastChunk": False}},
            ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, True, False),
        ),
    ],
)
def test_an_update_is_read(sent: Any, update: Update) -> None:
    assert update_from_wire(sent) == update


@pytest.mark.parametrize(
    "sent",
    [
        None, 5, "text", [], {}, {"weather": "fine"}, {"task": {}}, {"kind": "task"}, {"kind": "status-update"},
        STATUS | {"status": "working"}, STATUS | {"contextId": 5}, STATUS | {"metadata": [1]},
        ARTIFACT | {"artifact": []}, ARTIFACT | {"taskId": None},
        {"kind": "message", "role": "agent"}, {"role": "agent", "parts": "all"},
    ],
)  # fmt: skip
def test_json_that_is_not_an_update_is_rejected(sent: Any) -> None:
    with pytest.raises(InvalidUpdate, match="the agent sent"):
        update_from_wire(sent)


COMPLETION = {"id": "chatcmpl-1", "object": "chat.completion", "choices": [{"message": {"content": "hi"}}]}
RESPONSE = {"id": "resp_1", "object": "response", "status": "completed", "output": []}


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        (COMPLETION, "id, object, choices"),
        (RESPONSE, "id, object, status, output"),
        ({"id": "t"}, "members id"),
        ({"id": "t", "status": {}}, "members id, status"),
        ({"jsonrpc": "2.0", "id": 1, "result": None}, "None"),
        ({"jsonrpc": "2.0", "id": 1, "result": COMPLETION}, "choices"),
        ({"id": "t", "status": {"state": "thinking"}}, "status.state is 'thinking'"),
        ({"task": {"id": "t", "status": "completed"}}, "status is 'completed'"),
        (STATUS | {"status": {"state": 50}}, "status.state is 50"),
        (STATUS | {"status": {"state": True}}, "status.state is True"),
        (STATUS | {"status": {"state": -1}}, "status.state is -1"),
        (STATUS | {"status": {"state": "-3"}}, "status.state is '-3'"),
        ({"message": {"messageId": "m"}}, "parts are None"),
        ({"role": "assistant", "content": 5}, "parts are None"),
    ],
)
def test_an_unclear_value_is_rejected_with_its_path(sent: Any, place: str) -> None:
    with pytest.raises(InvalidUpdate, match=re.escape(place)):
        update_from_wire(sent)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *(
            (spelling, status)
            for status, words in STATE_NAMES.items()
            for word in words.values()
            for spelling in (word, word.upper(), word.lower(), word.replace("-", "_"), word.replace("-", " ").title())
        ),
        ("TASK_STATE_CANCELLED", "canceled"), ("cancelled", "canceled"), ("Cancelled", "canceled"),
        ("inputRequired", "input-required"), ("in_progress", "in_progress"), ("pending", "pending"),
        *((number, status) for number, status in enumerate([
            "unknown", "pending", "in_progress", "completed", "failed", "canceled", "input-required", "rejected",
            "auth-required"])),
        ("3", "completed"),
    ],
)  # fmt: skip
def test_every_spelling_of_a_state_is_known(state: Any, status: str) -> None:
    update = update_from_wire({"id": "t", "status": {"state": state}})
    [created, *_] = recorded(update)
    assert str(created.data.to_content()["status"]) == status
    assert str(status_of(readable_state(state))) == status
    assert readable_state(state) in {word for words in STATE_NAMES.values() for word in words.values()}


def recorded(update: Update) -> list[NewEvent]:
    return Recording("default", UUID(int=1)).events_of(update)


def test_results_and_errors_of_json_rpc_are_read() -> None:
    assert update_from_wire({"jsonrpc": "2.0", "id": 1, "result": {"task": TASK}}) == TaskSnapshot(TASK)
    assert update_from_wire({"jsonrpc": "2.0", "id": 1, "result": TASK}) == TaskSnapshot(TASK)
    with pytest.raises(AgentRefused, match="not today") as error:
        update_from_wire({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "not today"}})
    assert error.value.code == -32603


@pytest.mark.parametrize(
    ("sent", "parts"),
    [
        ({"role": "ROLE_AGENT", "content": [{"text": "hi"}]}, [{"text": "hi"}]),
        ({"role": "agent", "content": "hi"}, [{"kind": "text", "text": "hi"}]),
        ({"role": "assistant", "content": [{"type": "text", "text": "hi"}]}, [{"type": "text", "text": "hi"}]),
        ({"role": "ROLE_AGENT", "parts": [], "content": [{"text": "hi"}]}, [{"text": "hi"}]),
        ({"role": 2, "content": [{"data": {"data": {"x": 1}}}]}, [{"data": {"x": 1}}]),
        ({"role": 2, "parts": [{"data": {"data": {"x": 1}}}]}, [{"data": {"data": {"x": 1}}}]),
        (
            {"role": "agent", "parts": [{"file": {"fileWithUri": "u", "mimeType": "image/png", "name": "n"}}]},
            [{"url": "u", "mediaType": "image/png", "filename": "n"}],
        ),
        (
            {"role": "agent", "content": [{"file": {"file_with_bytes": "AA==", "mime_type": "image/png"}}]},
            [{"raw": "AA==", "mediaType": "image/png"}],
        ),
        ({"role": "agent", "parts": [{"file": {"uri": "u"}}]}, [{"kind": "file", "file": {"uri": "u"}}]),
        ({"role": "agent", "parts": [{"url": "u", "media_type": "t"}]}, [{"url": "u", "mediaType": "t"}]),
    ],
)
def test_parts_are_read_in_every_spelling(sent: Any, parts: list[Any]) -> None:
    update = update_from_wire({"msg": sent})
    assert isinstance(update, Reply)
    assert update.message["parts"] == parts
    assert "content" not in update.message
    task = update_from_wire({"id": "t", "status": {"state": "working", "message": sent}, "history": [sent]})
    assert isinstance(task, TaskSnapshot)
    assert task.task["status"]["message"] == task.task["history"][0] == update.message
    artifact = {name: value for name, value in sent.items() if name != "role"} | {"artifactId": "a"}
    produced = update_from_wire({"taskId": "t", "artifact": artifact})
    assert isinstance(produced, ArtifactUpdate)
    assert produced.artifact == {"artifactId": "a", "parts": parts}
    assert checked_update(update) == update


def test_members_may_be_spelled_as_the_fields_of_protobuf() -> None:
    status = {"task_id": "t", "context_id": "c", "status": {"state": 2, "message": {"message_id": "m", "parts": []}}}
    assert update_from_wire({"status_update": status}) == StatusUpdate(
        "t", "c", {"state": 2, "message": {"messageId": "m", "parts": []}}
    )
    artifact = {"task_id": "t", "artifact": {"artifact_id": "a", "parts": []}, "last_chunk": True}
    assert update_from_wire(artifact) == ArtifactUpdate("t", None, {"artifactId": "a", "parts": []}, last_chunk=True)


@pytest.mark.parametrize(
    "update",
    [
        5, Reply("text"), Reply({"role": "agent"}), TaskSnapshot({"status": {"state": "working"}}),
        StatusUpdate("t", None, {"state": "thinking"}), StatusUpdate("t", 5, {}), ArtifactUpdate("t", None, []),
    ],
)  # fmt: skip
def test_a_typed_update_is_checked(update: Any) -> None:
    with pytest.raises(InvalidUpdate, match="the agent sent"):
        checked_update(update)


async def test_an_invalid_update_fails_the_answer_and_later_updates_are_stored() -> None:
    async def agent(message: dict[str, Any]) -> AsyncIterator[Any]:
        yield {"id": "t", "status": {"state": "TASK_STATE_WORKING"}}
        yield COMPLETION
        yield {"taskId": "t", "status": {"state": "COMPLETED"}}
        yield {"role": "agent", "content": "done"}

    manager = Manager(MemoryLog(), from_callable(agent))
    with pytest.raises(AnswerFailed, match="choices"):
        await manager.send_message("c", {"role": "user", "parts": []})
    assert [task["status"]["state"] for task in await manager.tasks("c")] == ["completed"]
    assert [message.get("parts") for message in await manager.messages("c")] == [
        [], [{"kind": "text", "text": "done"}],
    ]  # fmt: skip
    assert await manager.pending() == []


def test_a_reply_made_of_artifacts_stays_small() -> None:
    task = TaskTracker()
    task.apply(TaskSnapshot(TASK))
    assert task.final_message() is None
    for number, text in enumerate(["small", "x" * MAX_BYTES, "lost"]):
        task.apply(ArtifactUpdate("t", None, {"artifactId": str(number), "parts": [{"text": text}]}))
    words = task.final_message()
    assert words is not None
    assert words["parts"] == [{"text": "small"}]
