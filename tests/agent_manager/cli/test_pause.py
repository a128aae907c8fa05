"""The commands pause and resume."""

from __future__ import annotations

import json

from support.commandline import Eventstore, rows_of


def test_a_projection_is_paused_and_resumed_and_both_are_recorded(empty: Eventstore) -> None:
    empty("seed")
    assert empty("pause", "messages").lines == ["paused messages"]
    assert empty("pause", "messages", "tasks").lines == ["paused tasks; paused already messages"]
    paused = {each["name"]: each["paused_at"] for each in json.loads(empty("status", "--json").out)["projections"]}
    assert sorted(name for name, at in paused.items() if at) == ["messages", "tasks"]
    assert "messages (paused)" in empty("status").out
    unknown = empty("pause", "nothing")
    assert unknown.code == 1
    assert "there is no projection 'nothing'" in unknown.err
    resumed = empty("resume").lines
    assert resumed[0].startswith("resumed messages, tasks; not paused ")
    recorded = rows_of(empty, "history", "eventstore:operations")
    assert [each["event_type"] for each in recorded] == [
        "conversation.created", "operations.projection_paused", "operations.projection_paused",
        "operations.projection_resumed",
    ]  # fmt: skip
    assert recorded[1]["content"] == {"projections": ["messages"]}
    assert {each["actor"] for each in recorded} == {"cli"}
