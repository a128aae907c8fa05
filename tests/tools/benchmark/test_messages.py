"""The messages that every side appends."""

from __future__ import annotations

from itertools import islice
from statistics import median

from tools.benchmark.messages import MAX_CHARACTERS, MIN_CHARACTERS, Message, conversations, streams


def some(seed: str, callers: int = 4, each: int = 500) -> list[list[Message]]:
    return [list(islice(stream, each)) for stream in streams(seed, callers)]


def test_the_same_seed_gives_the_same_messages_under_fresh_ids() -> None:
    first, again = some("a"), some("a")
    assert [[m.text for m in stream] for stream in first] == [[m.text for m in stream] for stream in again]
    assert not {m.id for stream in first for m in stream} & {m.id for stream in again for m in stream}


def test_another_seed_gives_other_messages() -> None:
    assert [m.text for m in some("a")[0]] != [m.text for m in some("b")[0]]


def test_most_messages_are_short_and_a_few_are_long() -> None:
    sizes = sorted(len(m.text) for stream in some("sizes", each=2000) for m in stream)
    assert sizes[0] >= MIN_CHARACTERS
    assert sizes[-1] <= MAX_CHARACTERS
    assert 150 < median(sizes) < 260
    assert sizes[-1] > 5000


def test_versions_rise_by_one_within_each_conversation() -> None:
    for stream in some("versions"):
        seen: dict[object, int] = {}
        for message in stream:
            assert message.version == seen.get(message.conversation_id, 0) + 1
            seen[message.conversation_id] = message.version


def test_messages_go_to_new_and_to_existing_conversations() -> None:
    versions = [message.version for message in some("mixed", callers=1)[0]]
    assert 20 < versions.count(1) < 150


def test_callers_share_no_conversation() -> None:
    owners: dict[object, int] = {}
    for number, stream in enumerate(some("callers")):
        for message in stream:
            assert owners.setdefault(message.conversation_id, number) == number


def test_the_bare_side_sends_the_content_that_the_store_writes() -> None:
    for messages in conversations("content", 3, 4):
        assert all(message.event().data.to_content() == message.content() for message in messages)
