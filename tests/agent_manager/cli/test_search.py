"""``eventstore search``: results for people and for programs, and errors."""

from __future__ import annotations

import json

import pytest
from support.commandline import Eventstore


@pytest.fixture
def searchable(empty: Eventstore, tmp_path_factory: pytest.TempPathFactory) -> Eventstore:
    file = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    messages = [
        {
            "role": "user",
            "content": "Quando parte o próximo comboio para Lisboa?",
            "created_at": "2025-01-09T17:00:00Z",
        },
        {"role": "assistant", "content": "The next trains leave at nine.", "created_at": "2025-01-10T17:00:00Z"},
        {"role": "user", "content": "And the train after that?", "created_at": "2025-01-11T17:00:00Z"},
    ]
    file.write_text(json.dumps({"id": "trip", "title": "Trains", "messages": messages}) + "\n", encoding="utf-8")
    assert empty("import", str(file)).code == 0
    assert empty("rebuild", "search").code == 0
    return empty


def test_each_result_is_a_line(searchable: Eventstore) -> None:
    result = searchable("search", "proximos comboios")
    assert result.code == 0
    [heading, line] = result.out.splitlines()
    assert heading.split() == ["time", "conversation", "kind", "role", "actor", "snippet"]
    assert line.endswith("Quando parte o «próximo» «comboio» para Lisboa?")


def test_filters_and_cursors_are_options(searchable: Eventstore) -> None:
    first = json.loads(searchable("search", "train", "--by", "time", "--limit", "1", "--json").out)
    [hit] = first["items"]
    assert (hit["role"], hit["snippet"]) == ("user", "And the «train» after that?")
    second = json.loads(
        searchable("search", "train", "--by", "time", "-n", "1", "--after", first["next"], "--json").out
    )
    assert [hit["role"] for hit in second["items"]] == ["assistant"]
    narrowed = searchable("search", "train", "--until", "2025-01-11", "--conversation", "trip", "--role", "assistant")
    assert len(narrowed.out.splitlines()) == 2
    assert searchable("search", "train", "--since", "2025-02-01T00:00+01:00", "--actor", "nobody").out == ""


def test_corrections_and_further_results_are_mentioned(searchable: Eventstore) -> None:
    result = searchable("search", "trian", "--limit", "1")
    assert "nothing matches; this does: train" in result.err
    assert "there is more: --after " in result.err
    nothing = searchable("search", "xylophone")
    assert (nothing.code, nothing.out, nothing.err.strip()) == (0, "", "nothing matches")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is not a time: write it as 2026-01-31"),
        (("--by", "luck"), "by: 'luck' is unknown: choose among relevance, time"),
        (("--kind", "memo"), "kind: 'memo' is unknown"),
        (("--language", "klingon"), "language: 'klingon' is not a language that can be searched"),
        (("--after", "nonsense"), "the cursor does not belong to this search"),
        (("--conversation", "nowhere"), "no conversation has the id 'nowhere'"),
    ],
)
def test_mistakes_are_named(searchable: Eventstore, arguments: tuple[str, ...], what: str) -> None:
    result = searchable("search", "train", *arguments)
    assert result.code == 1
    assert what in result.err
    assert "Traceback" not in result.err
