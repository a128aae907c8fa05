"""The stores of a2a-sdk 0.3, whose values are pydantic models; they run where that version is installed."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from support.examples import examples

from eventstore import EventStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared_database,
    pytest.mark.skipif(not metadata.version("a2a-sdk").startswith("0."), reason="another version is installed"),
]

TASK: dict[str, Any] = {
    "id": "t", "contextId": "trip", "kind": "task", "status": {"state": "submitted"},
    "history": [
        {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "Where is Lisbon?"}]}
    ],
}  # fmt: skip


def task(**members: Any) -> Any:
    from a2a.types import Task

    return Task.model_validate(TASK | members)


async def test_a_task_reads_back_equal_after_each_change(store: EventStore) -> None:
    from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

    tasks = EventStoreTaskStore(store)
    message = {"kind": "message", "messageId": "m2", "role": "agent", "parts": [{"kind": "data", "data": {"a": None}}]}
    file = {"kind": "file", "file": {"bytes": "AAE=", "mimeType": "image/png"}}
    changes = [
        {},
        {"status": {"state": "working", "message": message, "timestamp": "2026-01-01T00:00:00Z"}},
        {"status": {"state": "completed"}, "history": [*TASK["history"], message], "metadata": {"none": None}},
        {"status": {"state": "completed"}, "artifacts": [{"artifactId": "a", "parts": [file]}]},
        {"status": {"state": "unknown"}, "artifacts": [], "history": []},
    ]
    for change in changes:
        changed = task(**change)
        await tasks.save(changed)
        assert await tasks.get("t") == changed
        assert await EventStoreTaskStore(store).get("t") == changed
    await tasks.delete("t")
    assert await tasks.get("t") is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from("ab"), each, max_size=2),
    max_leaves=4,
)


@given(values=st.lists(st.dictionaries(st.sampled_from("ab"), json_values), max_size=4))
@examples(20)
async def test_metadata_reads_back_equal(store: EventStore, values: list[Any]) -> None:
    from agent_manager.adapters.a2a_sdk import EventStoreTaskStore

    for value in values:
        changed = task(metadata=value)
        await EventStoreTaskStore(store).save(changed)
        assert await EventStoreTaskStore(store).get("t") == changed


async def test_settings_of_push_notifications_are_kept(store: EventStore) -> None:
    from a2a.types import PushNotificationConfig

    from agent_manager.adapters.a2a_sdk import EventStorePushNotificationConfigStore

    configs = EventStorePushNotificationConfigStore(store, Fernet.generate_key())
    await configs.set_info("t", PushNotificationConfig(url="https://example.org/", token="hunter2"))
    await configs.set_info("t", PushNotificationConfig(id="other", url="https://example.org/"))
    assert [(each.id, each.token) for each in await configs.get_info("t")] == [("t", "hunter2"), ("other", None)]
    await configs.delete_info("t", "other")
    assert [each.id for each in await configs.get_info("t")] == ["t"]
    await configs.delete_info("t")
    assert await configs.get_info("t") == []
