"""Saying things in a log and searching it: what the tests of the search share."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from eventstore import ConversationCreated, EventData, EventStore, MessageAdded
from projections import Search, catch_up, select_projections

SEARCH = select_projections(["search"])


async def say(
    store: EventStore, *events: EventData | str, tenant: str | None = None, actor: str = "", language: str | None = None
) -> UUID:
    """Appends messages of a user, or events, to a conversation of their own, and returns its id."""
    conversation = uuid4()
    created = ConversationCreated(metadata=None if language is None else {"language": language})
    contents = [MessageAdded(role="user", content=event) if isinstance(event, str) else event for event in events]
    await store.append(conversation, [created, *contents], tenant=tenant, actor=actor)
    await catch_up(store, SEARCH)
    return conversation


async def found(store: EventStore, query: str, *, tenant: str | None = None, **filters: Any) -> list[str]:
    """The snippets of the hits, without marks."""
    page = await Search(store, tenant).page(query, marks=("", ""), **filters)
    return [hit.snippet for hit in page.items]


def texts(*given: str) -> Sequence[str]:
    """The texts in the order in which sets of them are compared."""
    return sorted(given)


def libc_locales() -> list[str]:
    """The locales that the machine has, of those in which searches are compared; the first is C."""
    available = set(subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.split())
    compared = ["C", "C.utf8", "de_DE.utf8", "en_US.utf8", "pt_BR.utf8", "tr_TR.utf8"]
    return [locale for locale in compared if locale in available]
