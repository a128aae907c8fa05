"""The messages of a conversation as the demo lists them: each is made into JSON once, and only new ones are read.

Events never change, so what was made of a conversation up to a version stays right; a further look asks the log
for what came after that version.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from cachetools import LRUCache
from pydantic_core import to_json

from agent_manager.agents.wire import Shape, shape_of
from agent_manager.http.demo.files import listed
from agent_manager.http.demo.shaping import as_message, unnamed
from eventstore import MessageAdded, sent_message
from projections import Reader

_MAX_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 500


class _Made(NamedTuple):
    version: int
    number: int
    shape: Shape | None
    text: bytes


class Messages:
    """Lists of messages, as JSON without the brackets around them; the last used ones are kept.

    Whoever may see a conversation sees all of it. So a list is kept for all of its tenant, and given only to those for
    whom the conversation has been found.
    """

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._made: LRUCache[tuple[str, UUID, Shape | None], _Made] = LRUCache(
            max_bytes, getsizeof=lambda made: len(made.text) + _ENTRY_BYTES
        )

    async def listed(self, reader: Reader, conversation_id: UUID, asked: Shape | None) -> bytes:
        """The messages, oldest first, in the shape that was asked for, else in that of the first.

        Args:
            reader: has found the conversation.
        """
        key = (reader.tenant, conversation_id, asked)
        version, number, shape, text = self._made.get(key, _Made(0, 0, asked, b""))
        texts = [text] if text else []
        events = reader.store.read(
            conversation_id,
            after=version,
            types=["message.added"],
            tenant=reader.tenant,
            user=reader.caller.user,
        )
        async for event in events:
            version = event.version
            if isinstance(event.data, MessageAdded):
                sent = sent_message(event.data)
                shape = shape or shape_of(sent)
                message = as_message(sent, shape, unnamed(conversation_id, number))
                texts.append(to_json(listed(message, conversation_id, event.version)))
                number += 1
        made = _Made(version, number, shape, b",".join(texts))
        if len(made.text) + _ENTRY_BYTES <= self._made.maxsize:
            self._made[key] = made
        return made.text
