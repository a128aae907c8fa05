"""``eventstore stats``: tables with bar charts for people, JSON for programs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.commandline import STRANGE, Eventstore

from agent_manager.cli.output import bars, duration

BY = ["day", "role", "actor", "status"]


def json_of(library: Eventstore, *arguments: str) -> Any:
    result = library("stats", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    printed = json.loads(result.out)
    return printed["items"] if "--by" in arguments else printed


def test_the_overview_as_json_has_all_parts(library: Eventstore) -> None:
    everything = json_of(library)
    assert set(everything) == {"zone", "days", "roles", "actors", "statuses", "response_times", "sizes"}
    assert everything["zone"] == "UTC"
    for by, name in zip(BY, ["days", "roles", "actors", "statuses"], strict=True):
        assert json_of(library, "--by", by) == everything[name]


@pytest.mark.parametrize("by", BY)
def test_every_count_names_its_time_zone(library: Eventstore, by: str) -> None:
    arguments = ("stats", "--by", by, "--since", "2020-01-01", "--zone", "America/Sao_Paulo")
    result = library(*arguments)
    assert (result.out + result.err).count("America/Sao_Paulo") == 1
    assert json.loads(library(*arguments, "--json").out)["zone"] == "America/Sao_Paulo"


def test_the_days_as_json(library: Eventstore) -> None:
    [day] = json_of(library, "--by", "day")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", day["day"])
    counted = {name: day[name] for name in ("conversations", "active_conversations", "messages", "tasks", "events")}
    assert counted == {"conversations": 3, "active_conversations": 3, "messages": 4, "tasks": 1, "events": 20}
    assert (day["response_times"]["questions"], day["response_times"]["answered"]) == (1, 1)


def test_roles_actors_and_statuses_as_json(library: Eventstore) -> None:
    roles = json_of(library, "--by", "role")
    assert {row["role"]: row["messages"] for row in roles} == {"assistant": 2, "tool": 1, "user": 1}
    actors = json_of(library, "--by", "actor")
    assert [(row["actor"], row["events"]) for row in actors] == [(f"ana {STRANGE}", 16), ("", 4)]
    statuses = json_of(library, "--by", "status")
    assert {(row["kind"], row["status"]): row["number"] for row in statuses} == {
        ("conversation", "active"): 1, ("conversation", "archived"): 1, ("conversation", "deleted"): 1,
        ("task", "completed"): 1, ("task", "pending"): 0,
    }  # fmt: skip
    [pending] = [row for row in statuses if row["status"] == "pending"]
    assert pending["times"]["stays"] == 1


def test_what_is_counted_can_be_filtered(library: Eventstore) -> None:
    assert [row["events"] for row in json_of(library, "--by", "actor", "--actor", "")] == [4]
    assert len(json_of(library, "--by", "actor", "--limit", "1")) == 1
    assert json_of(library, "--by", "day", "--until", "2020-01-01") == []
    assert len(json_of(library, "--by", "day", "--since", "2020-01-01", "--zone", "Asia/Kathmandu")) in (1, 2)
    assert json_of(library, "--by", "role", "--tenant", "another") == []
    assert [row["conversations"] for row in json_of(library, "--by", "day", "--tenant", "another")] == [1]


def test_a_limit_keeps_the_latest_days(empty: Eventstore) -> None:
    assert empty("seed").code == 0
    [day] = json_of(empty, "--by", "day", "--limit", "1")
    assert day["day"] == "2025-01-09"


@pytest.mark.parametrize(
    ("by", "heading", "row"),
    [
        ("day", r"day \(UTC\) +conversations +active +messages +tasks +characters +median response +messages",
         r"20\d\d-\d\d-\d\d +3 +3 +4 +1 .*█{24}"),
        ("role", "role +conversations +messages +characters +bytes +parts +messages", r"assistant +1 +2 .* 2 +█{24}"),
        ("actor", "actor +conversations +active +messages +tasks +events +median response +events",
         r"ana .* 16 .*█{24}"),
        ("status", "of +status +number +median until it +95 % until it +stays +median in it +number",
         r"task +completed +1 .*█{24}"),
    ],
)  # fmt: skip
def test_tables_have_bar_charts(library: Eventstore, by: str, heading: str, row: str) -> None:
    result = library("stats", "--by", by)
    assert (result.code, result.err) == (0, "" if by == "day" else "time zone: UTC\n")
    assert re.fullmatch(heading, result.lines[0])
    assert re.search(row, result.out)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.out)


def test_the_overview_has_a_table_of_each_kind(library: Eventstore) -> None:
    result = library("stats")
    assert (result.code, result.err) == (0, "")
    assert "1 of 1 questions answered: median " in result.out
    headings = [line.split()[0] for line in result.lines if line]
    assert [word for word in headings if word in ("day", "role", "actor", "of", "size")] == [
        "day", "role", "actor", "of", "size",
    ]  # fmt: skip
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", result.out)


@pytest.mark.parametrize("arguments", [(), *(("--by", by) for by in BY)], ids=["everything", *BY])
def test_an_empty_database_prints_a_hint(empty: Eventstore, arguments: tuple[str, ...]) -> None:
    result = empty("stats", *arguments)
    assert (result.code, result.out) == (0, "")
    assert "eventstore seed or eventstore import" in " ".join(result.err.split())
    assert empty("stats", *arguments, "--json").code == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--since", "2026-13-01"), "--since: '2026-13-01' is not a day: write it as 2026-01-31"),
        (("--until", "tomorrow"), "--until: 'tomorrow' is not a day"),
        (("--until", "\x1b[31m"), r"--until: '\x1b[31m' is not a day"),
        (("--since", "2026-02-02", "--until", "2026-02-01"), "since: 2026-02-02 is after until, 2026-02-01"),
        (("--zone", "Mars/Phobos"), "zone: 'Mars/Phobos' is not a time zone: give a name of the IANA database"),
        (("--zone", "Africa/Monrovia", "--since", "1960-01-01"), "Ask for UTC, or for later days"),
        (("--actor", "\udcff"), "actor"),
    ],
)
def test_invalid_filters_are_rejected(library: Eventstore, arguments: tuple[str, ...], expected: str) -> None:
    result = library("stats", *arguments)
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("eventstore: error: ")
    assert expected in result.err
    assert len(result.err.splitlines()) == 1
    assert "\x1b" not in result.err


def test_an_unknown_grouping_is_wrong_usage(library: Eventstore) -> None:
    result = library("stats", "--by", "week")
    assert result.code == 2
    assert "day" in result.err


def test_bars_are_proportional_to_the_largest_value() -> None:
    assert bars([]) == []
    assert bars([0, 0]) == ["", ""]
    full, half, trace, none = bars([1000, 500, 1, 0])
    assert (full, half, trace, none) == ("█" * 24, "█" * 12, "▏", "")
    assert bars([16, 9])[1] == "█" * 13 + "▌"


def test_bars_are_ascii_if_the_output_is_not_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Plain())
    drawn = bars([2, 1, 0])
    monkeypatch.undo()
    assert drawn == ["#" * 24, "#" * 12, ""]


def test_durations_use_the_largest_unit() -> None:
    texts = [duration(seconds) for seconds in (None, 0, 0.0042, 0.5, 59.9, 90, 5400, 200_000, 1e10)]
    assert texts == ["", "0.0 s", "4.2 ms", "0.5 s", "59.9 s", "1.5 min", "1.5 h", "2.3 d", "115,740.7 d"]
