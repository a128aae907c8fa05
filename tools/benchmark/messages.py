"""Synthetic chat messages, the same for every side of a comparison, and logs filled with them.

Most messages are short, a few long; conversations are of uneven length. Sizes, texts and lengths follow from a seed;
ids are random, so that several sides can append the same messages to one table. Each caller has several conversations
open at a time and starts new ones as they end, so that appends go to new and to existing conversations.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

from eventstore import Append, EventStore, MessageAdded, NewEvent
from eventstore.event_types import RoleWord

MIN_CHARACTERS, MAX_CHARACTERS = 20, 20_000
"""Characters of a message; the median is about 200."""
_OPEN_CONVERSATIONS = 4


@dataclass(frozen=True, slots=True)
class Message:
    """A message to append, with everything that a client could compute before sending it."""

    conversation_id: UUID
    id: UUID
    version: int
    role: RoleWord
    actor: str
    text: str
    salt: bytes
    digest: bytes

    def event(self) -> NewEvent:
        """Return the message as the store takes it."""
        return NewEvent(MessageAdded(role=self.role, content=self.text), id=self.id, actor=self.actor)

    def content(self) -> dict[str, Any]:
        """Return the JSON that the store writes."""
        return {"role": self.role, "content": self.text}


def streams(seed: str, callers: int) -> list[Iterator[Message]]:
    """Return an endless stream of messages for each caller; callers share no conversation."""
    return [_stream(random.Random(f"{seed}/{caller}")) for caller in range(callers)]


def conversation(seed: str, length: int) -> list[Message]:
    """Return the messages of a new conversation."""
    return list(_conversation(random.Random(f"conversation/{seed}"), length))


def conversations(seed: str, number: int, length: int) -> list[list[Message]]:
    """Return the messages of several new conversations."""
    return [conversation(f"{seed}/{index}", length) for index in range(number)]


def _stream(rng: random.Random) -> Iterator[Message]:
    current = [_conversation(rng, _length(rng)) for _ in range(_OPEN_CONVERSATIONS)]
    while True:
        index = rng.randrange(_OPEN_CONVERSATIONS)
        message = next(current[index], None)
        if message is None:
            current[index] = _conversation(rng, _length(rng))
        else:
            yield message


def _conversation(rng: random.Random, length: int) -> Iterator[Message]:
    conversation_id = uuid4()
    user = f"user-{rng.randrange(10_000)}@example.org"
    for version in range(1, length + 1):
        is_user = version % 2 == 1
        role: RoleWord = "user" if is_user else "assistant"
        actor = user if is_user else "travel-agent"
        text, salt, digest = _text(rng), rng.randbytes(16), rng.randbytes(32)
        yield Message(conversation_id, uuid4(), version, role, actor, text, salt, digest)


def _length(rng: random.Random) -> int:
    """Return a length: at most ten messages for half of the conversations, more than fifty for one in twenty."""
    return max(2, min(500, round(rng.lognormvariate(2.3, 1.0))))


def _text(rng: random.Random) -> str:
    size = max(MIN_CHARACTERS, min(MAX_CHARACTERS, round(rng.lognormvariate(5.3, 1.15))))
    corpus = _corpus()
    begin = rng.randrange(len(corpus) - size)
    return corpus[begin : begin + size]


@cache
def _corpus() -> str:
    """Return a long text of Portuguese and English words; a message is a slice of it, which is quick to make."""
    words = files("tools.benchmark").joinpath("words.txt").read_text(encoding="utf-8").split()
    return " ".join(random.Random("library").choices(words, k=60_000))


_IMPORT_CONVERSATIONS = 100
_MAX_IMPORT = 10_000


async def fill(
    store: EventStore,
    seed: str,
    events: int,
    *,
    report: Callable[[str], None] = lambda _: None,
    change: Callable[[Message], NewEvent] = Message.event,
) -> None:
    """Append a number of events, in conversations of equal length.

    Args:
        report: called with the progress.
        change: turns a message into the event to append.
    """
    begins = iter(range(0, events, _MAX_IMPORT))

    async def work() -> None:
        for begin in begins:
            each, more = divmod(min(_MAX_IMPORT, events - begin), _IMPORT_CONVERSATIONS)
            lengths = [each + (number < more) for number in range(_IMPORT_CONVERSATIONS)]
            made = conversations(f"{seed}/{begin}", _IMPORT_CONVERSATIONS, max(lengths))
            await store.append_all([
                Append(messages[0].conversation_id, [change(message) for message in messages[:length]])
                for messages, length in zip(made, lengths, strict=True)
                if length
            ])  # fmt: skip
            report(f"filling the log: {begin:,} of {events:,}")

    async with asyncio.TaskGroup() as group:  # while one import is encoded, the server stores another
        group.create_task(work())
        group.create_task(work())


async def fill_conversation(store: EventStore, seed: str, events: int) -> UUID:
    """Append a conversation of a number of events, and return its id."""
    messages = conversation(seed, events)
    for begin in range(0, events, _MAX_IMPORT):
        some = messages[begin : begin + _MAX_IMPORT]
        await store.append(some[0].conversation_id, [message.event() for message in some])
    return messages[0].conversation_id
