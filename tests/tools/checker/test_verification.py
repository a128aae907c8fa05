"""The comparison finds whatever is wrong with a history, says which event shows it, and finds nothing else."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.journals import Attempt, History, Reading, correct, journal_line

from tools.checker.adapter import ReadEvent
from tools.checker.report import Findings, Kind, Violation
from tools.checker.verification import Records, compare

pytestmark = pytest.mark.any_server

chances = st.integers(0, 2**32).map(random.Random)
Break = Callable[[History, random.Random], str]
"""Breaks a history in one way, and returns the id of the event that shows it."""


def findings_of(history: History) -> Findings:
    with tempfile.TemporaryDirectory() as folder:
        return history.compared(Path(folder))


def one_of(history: History, chance: random.Random, *fates: str) -> Attempt:
    return chance.choice([attempt for attempt in history.attempts if attempt.fate in fates])


def stored(history: History, event_id: str) -> int:
    """Return the place of an event in the log."""
    return next(index for index, event in enumerate(history.log) if event.id.hex == event_id)


def forget(history: History, event_id: str) -> ReadEvent:
    """Removes an event from the log, and from what readers saw."""
    event = history.log.pop(stored(history, event_id))
    for reader in history.readers:
        for lines in reader.incarnations:
            lines[:] = [line for line in lines if event_id not in line]
    return event


def add(history: History, event: ReadEvent, index: int) -> None:
    """Puts an event into the log and before the eyes of every reader."""
    for reader in history.readers:
        for lines in reader.incarnations:
            for at, line in enumerate(lines):
                if line.startswith("+") and int(line.split()[1]) > event.position:
                    if reader.tenant in (None, event.tenant):
                        lines.insert(at, journal_line(event))
                    break
    history.log.insert(index, event)


def lose(history: History, chance: random.Random) -> str:
    event_id = chance.choice(one_of(history, chance, "acknowledged", "repeated").ids)
    forget(history, event_id)
    return event_id


def lose_a_half(history: History, chance: random.Random) -> str:
    event_id = chance.choice(one_of(history, chance, "found").ids)
    forget(history, event_id)
    return event_id


def move(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "acknowledged", "repeated")
    index = chance.randrange(len(attempt.ids))
    attempt.last_note["places"][index][0] += 1
    return attempt.ids[index]


def acknowledge_without_places(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "acknowledged")
    attempt.last_note["places"] = []
    return attempt.ids[0]


def store_twice(history: History, chance: random.Random) -> str:
    event = chance.choice(history.log)
    history.log.append(event._replace(position=history.log[-1].position + 1))
    return event.id.hex


def share_a_position(history: History, chance: random.Random) -> str:
    index = chance.randrange(1, len(history.log))
    history.log[index] = history.log[index]._replace(position=history.log[index - 1].position)
    return history.log[index].id.hex


def store_what_was_not_to_be(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "refused", "aborted")
    tenant, conversation, _, (event_id, *_) = attempt.notes[0]["writes"][0]
    last = history.log[-1].position
    history.log.append(ReadEvent(last + 5, tenant, UUID(conversation), 1, UUID(event_id), True))
    return str(event_id)


def store_what_nobody_appended(history: History, chance: random.Random) -> str:
    event = ReadEvent(history.log[-1].position + 1, "check-1", uuid4(), 1, uuid4(), True)
    history.log.append(event)
    return event.id.hex


def alter_content(history: History, chance: random.Random) -> str:
    index = chance.randrange(len(history.log))
    history.log[index] = history.log[index]._replace(intact=False)
    return history.log[index].id.hex


def alter_tenant(history: History, chance: random.Random) -> str:
    index = chance.randrange(len(history.log))
    history.log[index] = history.log[index]._replace(tenant="check-9")
    return history.log[index].id.hex


def skip_a_version(history: History, chance: random.Random) -> str:
    index = chance.randrange(len(history.log))
    history.log[index] = history.log[index]._replace(version=history.log[index].version + 1)
    return history.log[index].id.hex


def a_reader(history: History, chance: random.Random, *kinds: str) -> Reading:
    """Return a reader that saw at least two events in its last life, or one of these kinds."""
    busy = [r for r in history.readers if sum(line.startswith("+") for line in r.incarnations[-1]) >= 2]
    return chance.choice([r for r in history.readers if r.name.endswith(kinds)] if kinds else busy)


def a_delivery(reader: Reading, chance: random.Random, *, not_last: bool = False) -> tuple[list[str], int, str]:
    """An incarnation's lines, the index of a delivery there, and the id delivered."""
    lines = reader.incarnations[-1]  # the only one that surely saw something after it
    found = [index for index, line in enumerate(lines) if line.startswith("+")]
    index = chance.choice(found[:-1] if not_last else found)
    return lines, index, lines[index].split()[5]


def miss(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance, "start"), chance, not_last=True)
    del lines[index]
    return event_id


def pass_by(history: History, chance: random.Random) -> str:
    """The checkpoint goes to an event that was not seen yet."""
    reader = a_reader(history, chance, "file", "table")
    number, index = chance.choice(reader.deliveries())
    position, event_id = reader.incarnations[number][index].split()[1::4]
    seen_before = [
        line.split()[5]
        for lines in (*reader.incarnations[:number], reader.incarnations[number][:index])
        for line in lines
        if line.startswith("+")
    ]
    if event_id in seen_before:
        number = 0
        index = next(at for at, line in enumerate(reader.incarnations[0]) if line.startswith("+"))
        position, event_id = reader.incarnations[0][index].split()[1::4]
    reader.incarnations[number].insert(index, f"check {position}")
    return event_id


def miss_and_pass_by(history: History, chance: random.Random) -> str:
    reader = a_reader(history, chance, "file", "table")
    del reader.incarnations[:-1]
    lines = reader.incarnations[0] = [
        f"kind {reader.name.split('-')[-1]}",
        "start 0",
        *map(journal_line, history.log),
        "end",
    ]
    index = chance.randrange(2, len(lines) - 2)
    event_id = lines[index].split()[5]
    del lines[index]
    lines.insert(-1, f"check {history.log[-1].position}")
    return event_id


def begin_behind_the_checkpoint(history: History, chance: random.Random) -> str:
    reader = a_reader(history, chance, "file", "table")
    first = history.log[0]
    reader.incarnations = [
        [reader.incarnations[0][0], "start 0"],
        [reader.incarnations[0][0], f"start {first.position}", *map(journal_line, history.log[1:]), "end"],
    ]
    return first.id.hex


def repeat(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance), chance)
    lines.insert(index, lines[index])
    return event_id


def swap(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance, "start"), chance, not_last=True)
    other = next(at for at in range(index + 1, len(lines)) if lines[at].startswith("+"))
    lines[index], lines[other] = lines[other], lines[index]
    return event_id


def invent(history: History, chance: random.Random) -> str:
    lines, index, _ = a_delivery(a_reader(history, chance), chance)
    invented = uuid4().hex
    lines.insert(index + 1, " ".join((*lines[index].split()[:5], invented, "1")))
    return invented


def misread(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance), chance)
    words = lines[index].split()
    lines[index] = " ".join((*words[:4], str(int(words[4]) + 1), *words[5:]))
    return event_id


def get_stuck(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance), chance)
    del lines[index:]
    return event_id


def claim_the_end_too_early(history: History, chance: random.Random) -> str:
    lines, index, event_id = a_delivery(a_reader(history, chance, "start"), chance)
    del lines[index:]
    lines.append("end")
    return event_id


def raise_in_a_writer(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "found", "absent")
    attempt.notes.append({"t": attempt.last_note["t"], "op": attempt.notes[0]["op"], "k": "error", "why": "KeyError"})
    return f"append {attempt.notes[0]['op']} raises KeyError"


def raise_in_a_reader(history: History, chance: random.Random) -> str:
    a_reader(history, chance).incarnations[0].insert(2, "error KeyError: boo")
    return "raises KeyError: boo"


def refuse_wrongly(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "refused")
    attempt.notes.insert(1, {**attempt.notes[0], "k": "wrong"})
    return f"append {attempt.notes[0]['op']} is refused"


def accept_wrongly(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "acknowledged", "repeated")
    attempt.notes[0]["writes"][0][2] = 1000
    return f"append {attempt.notes[0]['op']} is acknowledged"


def accept_where_none_was(history: History, chance: random.Random) -> str:
    attempt = one_of(history, chance, "acknowledged", "repeated")
    first = attempt.last_note["places"][0][1]
    attempt.notes[0]["writes"][0][2] = "EXISTS" if first == 1 else "NO_STREAM"
    return f"append {attempt.notes[0]['op']} is acknowledged"


BREAKS: dict[Break, Kind] = {
    lose: Kind.LOST,
    lose_a_half: Kind.HALF,
    move: Kind.MOVED,
    acknowledge_without_places: Kind.MOVED,
    store_twice: Kind.TWICE,
    share_a_position: Kind.SAME_POSITION,
    store_what_was_not_to_be: Kind.UNWANTED,
    store_what_nobody_appended: Kind.FOREIGN,
    alter_content: Kind.ALTERED,
    alter_tenant: Kind.ALTERED,
    skip_a_version: Kind.VERSIONS,
    miss: Kind.MISSED,
    pass_by: Kind.PASSED,
    miss_and_pass_by: Kind.PASSED,
    begin_behind_the_checkpoint: Kind.PASSED,
    repeat: Kind.REPEATED,
    swap: Kind.DISORDER,
    invent: Kind.INVENTED,
    misread: Kind.MISREAD,
    get_stuck: Kind.STUCK,
    claim_the_end_too_early: Kind.MISSED,
    raise_in_a_writer: Kind.ERROR,
    raise_in_a_reader: Kind.ERROR,
    refuse_wrongly: Kind.WRONGLY_REFUSED,
    accept_wrongly: Kind.EXPECTATION,
    accept_where_none_was: Kind.EXPECTATION,
}


def test_every_kind_of_violation_that_journals_show_is_tried() -> None:
    assert set(Kind) - set(BREAKS.values()) == {Kind.CRASH, Kind.HUNG, Kind.UNHANDLED}


@given(chances)
def test_correct_journals_have_no_violation(chance: random.Random) -> None:
    history = correct(chance)
    findings = findings_of(history)
    assert findings.shortest() == []
    assert not findings.counts
    fates = [attempt.fate for attempt in history.attempts]
    assert vars(findings.appends) == {
        "acknowledged": fates.count("acknowledged") + fates.count("repeated"),
        "unknown_and_found": fates.count("found"),
        "unknown_and_absent": fates.count("absent"),
        "refused": fates.count("refused"),
        "aborted": fates.count("aborted"),
    }
    assert findings.events == len(history.log)
    assert findings.conversations == len({(event.tenant, event.conversation) for event in history.log})
    assert findings.reading.readers == len(history.readers)
    assert findings.reading.incarnations == sum(len(reader.incarnations) for reader in history.readers)
    assert findings.reading.deliveries == sum(len(reader.deliveries()) for reader in history.readers)


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
@settings(max_examples=12)
@given(chance=chances)
def test_a_violation_is_found_and_described_briefly(broken: Break, chance: random.Random) -> None:
    history = correct(chance)
    shows = broken(history, chance)
    findings = findings_of(history)
    kind = BREAKS[broken]
    assert findings.counts[kind] >= 1
    showing = [violation for violation in findings.kept if violation.kind is kind and shows[:12] in text(violation)]
    assert showing, findings.kept
    assert len(showing[0].history) <= 6
    times = [line.time for line in showing[0].history if line.time is not None]
    assert times == sorted(times)
    assert kind in {violation.kind for violation in findings.shortest()}


@given(chances)
def test_a_wrong_delivery_is_not_a_violation_of_the_log(chance: random.Random) -> None:
    history = correct(chance)
    for broken in (repeat, misread, invent):
        broken(history, chance)
    assert set(findings_of(history).counts) <= {Kind.REPEATED, Kind.MISREAD, Kind.INVENTED}


def text(violation: Violation) -> str:
    return "\n".join((violation.what, *(line.what for line in violation.history)))


def test_the_history_of_a_missed_event_is_its_append_and_what_the_reader_saw_around_it(tmp_path: Path) -> None:
    events = [ReadEvent(n, "check-1", UUID(int=7), n, UUID(int=n * 2**80), True) for n in (1, 2, 3)]
    attempts = [
        Attempt(
            "writer-1",
            "acknowledged",
            [
                {"t": 10.0 + n, "op": n, "k": "try", "how": "somehow", "sure": True,
                 "writes": [["check-1", UUID(int=7).hex, "ANY", [event.id.hex]]]},
                {"t": 10.5 + n, "op": n, "k": "acknowledged", "places": [[n, n]]},
            ],
        )
        for n, event in enumerate(events, 1)
    ]  # fmt: skip
    lines = ["kind start", "start 0", "@ 20.0", journal_line(events[0]), "@ 21.0", journal_line(events[2]), "end"]
    findings = History(attempts, events, [Reading("reader-1-start", None, [lines])]).compared(tmp_path)
    assert findings.counts == {Kind.MISSED: 1}
    (violation,) = findings.shortest()
    conversation = "conversation 000000000000 of check-1"
    assert [(line.time, line.who, line.what) for line in violation.history] == [
        (12.0, "writer-1", f"tries append 2, somehow: event 000000000002, to {conversation}, expecting ANY"),
        (12.5, "writer-1", "append 2 is acknowledged: event 000000000002 at position 2, version 2"),
        (20.0, "reader-1-start", f"sees position 1: event 000000000001, version 1 of {conversation}"),
        (21.0, "reader-1-start", f"sees position 3: event 000000000003, version 3 of {conversation}"),
    ]


def test_a_line_that_was_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    history = correct(random.Random(1))
    findings_before = findings_of(history)
    history.compared(tmp_path)
    for journal in tmp_path.glob("*.journal"):
        with journal.open("a") as file:
            file.write('{"t": 1, "k": "acknow' if journal.name.startswith("writer") else "+ 12 check-1 00")
    (tmp_path / "records").unlink()
    records = Records(tmp_path / "records")
    records.add_log(history.log)
    assert compare(records, tmp_path) == findings_before
    records.close()


def test_many_violations_are_all_counted_and_a_few_are_kept(tmp_path: Path) -> None:
    events = [ReadEvent(n, "check-1", UUID(int=n), 1, UUID(int=n), True) for n in range(1, 201)]
    findings = History([], events, []).compared(tmp_path)
    assert findings.counts == {Kind.FOREIGN: 200}
    assert len(findings.kept) == 20
    assert len(findings.shortest()) == 1
