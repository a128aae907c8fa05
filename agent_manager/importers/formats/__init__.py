"""The formats of conversations in files, a module for each program or vendor that writes them, and their recognition.

A format has a reader that returns a :class:`~agent_manager.importers.chats.Chat`. A value that has the form of a format
but is damaged raises MalformedChat with the place. What a message has beyond its text, its files and its calls is kept
in its member ``export``, which search leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent_manager.importers.chats import Chat, NotRecognised, kind, member_of, without
from agent_manager.importers.formats.anthropic import is_anthropic, is_claude, read_anthropic, read_claude
from agent_manager.importers.formats.chatgpt import is_chatgpt, read_chatgpt
from agent_manager.importers.formats.langchain import is_langchain, read_langchain
from agent_manager.importers.formats.openai import (
    is_item,
    is_openai,
    is_openai_message,
    is_responses,
    read_openai,
    read_responses,
)
from agent_manager.importers.formats.sharegpt import is_sharegpt, read_sharegpt


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A format: its name, what it is, whether a value has its form, and its reader."""

    name: str
    title: str
    fits: Callable[[Any], bool]
    read: Callable[[Any], Chat]


FORMATS = (
    ChatFormat("chatgpt", "exports of ChatGPT", is_chatgpt, read_chatgpt),
    ChatFormat("claude", "exports of Claude", is_claude, read_claude),
    ChatFormat("langchain", "messages of LangChain", is_langchain, read_langchain),
    ChatFormat("responses", "OpenAI Responses", is_responses, read_responses),
    ChatFormat("sharegpt", "ShareGPT", is_sharegpt, read_sharegpt),
    ChatFormat("anthropic", "Anthropic Messages", is_anthropic, read_anthropic),
    ChatFormat("openai", "OpenAI chat messages", is_openai, read_openai),
)
"""The formats, in the order in which they are tried. A more special form comes before a more general one."""
RECOGNISED = ", ".join(each.title for each in reversed(FORMATS))


def chat_format(value: Any, name: str | None = None) -> ChatFormat:
    """Return the format of a value, or the one with a name. Raise NotRecognised if there is none."""
    for each in FORMATS:
        if each.name == name or (name is None and each.fits(value)):
            return each
    raise NotRecognised(_described(value))


class ChatReader:
    """Reads the values of an import, in the format of each or in one that was given.

    Stored responses of OpenAI that follow each other are one conversation.
    """

    def __init__(self, format_name: str | None = None) -> None:
        self._format_name = format_name
        self._conversation_of: dict[str, str] = {}

    def read(self, value: Any) -> Chat:
        """Return the conversation of a value.

        Raises:
            NotRecognised: its format is unknown.
            MalformedChat: it is damaged.
        """
        value = _flattened(value)
        chat = chat_format(value, self._format_name).read(value)
        if chat.follows is not None:
            response_id, chat.given_id = chat.given_id, self._conversation_of.get(chat.follows, chat.follows)
            if response_id is not None:
                self._conversation_of[response_id] = chat.given_id
        return chat


def _described(value: Any) -> str:
    if isinstance(value, dict):
        names = ", ".join(list(value)[:8]) + (", …" if len(value) > 8 else "")
        return f"is an object with the members {names}" if value else "is an empty object"
    if isinstance(value, list) and value:
        return f"is a list whose first element {_described(value[0])}"
    return f"is {'an empty list' if isinstance(value, list) else kind(value)}"


def is_many(first: bytes, is_member: bool) -> bool:
    """Return whether each element of an array is a conversation, rather than the array one conversation.

    Args:
        is_member: whether the array is a member of an object, which may be a conversation itself.
    """
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not is_member
    if is_openai_message(value) or is_item(value) or is_langchain([value]) or is_sharegpt([value]):
        return False
    return not is_member or any(each.fits(value) for each in FORMATS)


def _flattened(value: Any) -> Any:
    """Return a record of a request and its response with the members of the request."""
    request = member_of(value, "request") if isinstance(value, dict) else {}
    request = member_of(request, "body") or request
    if request.keys() & {"messages", "input"} and not value.keys() & {"messages", "input"}:
        return without(value, "request") | request
    return value
