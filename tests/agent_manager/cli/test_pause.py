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
    recorded = rows_of(empty, "audit", "trail", "--system", "--oldest")
    assert [(each["event_type"], each["content"].get("projection")) for each in recorded][:4] == [
        ("eventstore.projection_paused", "messages"), ("eventstore.projection_paused", "tasks"),
        ("eventstore.projection_resumed", "messages"), ("eventstore.projection_resumed", "tasks"),
    ]  # fmt: skip
    assert {each["actor"].partition(":")[0] for each in recorded} == {"os"}
