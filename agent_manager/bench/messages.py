"""Chat messages as they come: many short, few long, in conversations of uneven length; the same ones for every side.

Sizes, texts and lengths follow from a seed; ids are fresh, so that several sides can append the same messages to one
table. A conversation's messages stand in its order; a caller has several conversations open
at once and begins new ones as they end, so that appends go to new and to existing conversations.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

from eventstore import MessageAdded, NewEvent
from eventstore.eventdata import RoleWord

SHORTEST, MEDIAN, LONGEST = 20, 200, 20_000
"""Characters of a message."""
_OPEN_CONVERSATIONS = 4


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way into a conversation, with all that a client could compute before it sends it."""

    conversation_id: UUID
    id: UUID
    version: int
    role: RoleWord
    actor: str
    text: str
    salt: bytes
    digest: bytes

    def event(self) -> NewEvent:
        """As it is given to the store."""
        return NewEvent(MessageAdded(role=self.role, content=self.text), id=self.id, actor=self.actor)

    def content(self) -> dict[str, Any]:
        """The same JSON that the store writes."""
        return {"role": self.role, "content": self.text}


def streams(seed: str, callers: int) -> list[Iterator[Message]]:
    """Messages without end for so many callers, who share no conversation."""
    return [_stream(random.Random(f"{seed}/{caller}")) for caller in range(callers)]


def conversation(seed: str, length: int) -> list[Message]:
    """The messages of one new conversation."""
    source = random.Random(f"conversation/{seed}")
    return list(_conversation(source, length))


def conversations(seed: str, number: int, length: int) -> list[list[Message]]:
    """The messages of several new conversations."""
    return [conversation(f"{seed}/{index}", length) for index in range(number)]


def _stream(source: random.Random) -> Iterator[Message]:
    opened = [_conversation(source, _length(source)) for _ in range(_OPEN_CONVERSATIONS)]
    while True:
        place = source.randrange(_OPEN_CONVERSATIONS)
        message = next(opened[place], None)
        if message is None:
            opened[place] = _conversation(source, _length(source))
        else:
            yield message


def _conversation(source: random.Random, length: int) -> Iterator[Message]:
    conversation_id = uuid4()
    user = f"user-{source.randrange(10_000)}@example.org"
    for version in range(1, length + 1):
        mine = version % 2 == 1
        role: RoleWord = "user" if mine else "assistant"
        actor = user if mine else "travel-agent"
        text, salt, digest = _text(source), source.randbytes(16), source.randbytes(32)
        yield Message(conversation_id, uuid4(), version, role, actor, text, salt, digest)


def _length(source: random.Random) -> int:
    """Half of the conversations have at most ten messages, one in twenty more than fifty."""
    return max(2, min(500, round(source.lognormvariate(2.3, 1.0))))


def _text(source: random.Random) -> str:
    size = max(SHORTEST, min(LONGEST, round(source.lognormvariate(5.3, 1.15))))
    library = _library()
    begin = source.randrange(len(library) - size)
    return library[begin : begin + size]


@cache
def _library() -> str:
    """A long text in Portuguese and English words, of which every message is a piece: to make one is then quick."""
    words = files("agent_manager.bench").joinpath("words.txt").read_text(encoding="utf-8").split()
    return " ".join(random.Random("library").choices(words, k=60_000))
