"""Updates are read from the JSON of either shape; what is none is refused and named."""

from __future__ import annotations

from typing import Any

import pytest

from agent_manager.agents.answering import ArtifactUpdate, Reply, StatusUpdate, TaskSeen, Update
from agent_manager.agents.closing import MAX_BYTES, LastTask
from agent_manager.agents.errors import InvalidUpdate
from agent_manager.agents.updates import update_from_wire

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
        (TASK, TaskSeen(TASK)),
        ({"task": TASK}, TaskSeen(TASK)),
        ({"kind": "task", "id": "t"}, TaskSeen({"kind": "task", "id": "t"})),
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
    ],
)  # fmt: skip
def test_what_is_no_update_is_refused(sent: Any) -> None:
    with pytest.raises(InvalidUpdate, match="the agent sent"):
        update_from_wire(sent)


def test_a_reply_made_of_artifacts_stays_small() -> None:
    task = LastTask()
    task.take(TaskSeen(TASK))
    assert task.last_words() is None
    for number, text in enumerate(["small", "x" * MAX_BYTES, "lost"]):
        task.take(ArtifactUpdate("t", None, {"artifactId": str(number), "parts": [{"text": text}]}))
    words = task.last_words()
    assert words is not None
    assert words["parts"] == [{"text": "small"}]
