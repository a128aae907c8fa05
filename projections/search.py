"""Searching what messages and tasks say: typed hits, a page at a time. The server does the work (``search_for``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, get_args
from uuid import UUID

from eventstore import Caller, EventStore, Role
from eventstore.database.queries import query as sql_text
from eventstore.errors import InputError
from eventstore.ids import parse_uuid
from eventstore.json_text import check_text
from projections.reading import caller_of

_SEARCH = sql_text("projections", "search")

By: TypeAlias = Literal["relevance", "time"]
Kind: TypeAlias = Literal["message", "task"]

LARGEST_PAGE = 1000

_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""What no stored text can hold, so that it would find nothing."""


@dataclass(frozen=True, slots=True)
class Hit:
    """Something that a search found.

    Attributes:
        kind: ``message``; ``task`` (a task's description), ``status`` (what was said of its state) or ``artifact``.
        id: of the message, or of the task.
        version: of the event in its conversation that said it.
        role: of a message; None for tasks.
        created_at: when it happened, as far as anybody said.
        language: its language, as a code such as ``pt``; ``und`` where that is not known.
        rank: how well it fits; 0 where results are asked for by time.
        snippet: the places that fit, with marks around what was found.
    """

    kind: str
    id: UUID
    conversation_id: UUID
    version: int
    position: int
    role: str | None
    actor: str
    created_at: datetime
    language: str
    rank: float
    snippet: str


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of what was found.

    Attributes:
        searched: the query that was searched for: the given one, or that with misspelt words corrected, where the given
            one finds nothing.
        cursor: gives the next page; None where there is none.
    """

    hits: list[Hit]
    searched: str
    cursor: str | None


class Search:
    """Searches the messages and tasks of one tenant, or those that a user may see, save those of hidden conversations.

    Args:
        tenant: the store's own if left out.
        caller: the tenant, and the user where only what they may see is searched; in the place of ``tenant``.
    """

    def __init__(self, store: EventStore, tenant: str | None = None, *, caller: Caller | None = None) -> None:
        self._store = store
        self._caller = caller_of(store, tenant, caller)

    async def page(
        self,
        query: str,
        *,
        by: By = "relevance",
        kind: Kind | None = None,
        role: str | None = None,
        actor: str | None = None,
        conversation: UUID | str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        language: str | None = None,
        limit: int = 20,
        after: str | None = None,
        marks: tuple[str, str] = ("«", "»"),
    ) -> SearchPage:
        """One page of what fits a query.

        Args:
            query: words, all of them wanted, in any of their forms, with accents or without; ``"a phrase"``;
                ``-without``; ``one or another``; ``begins*``. Any text is a query; what is behind a
                thousand characters or forty words is passed over.
            by: ``relevance``, the best first, among the latest four hundred that fit; ``time``, the latest first.
            kind: ``message``, or ``task``: descriptions, what was said of a task's state, artifacts.
            role, actor, conversation: only of this one.
            since, until: a half-open range of ``created_at``, aware.
            language: that of the query, as ``pt`` or ``en-US``; None tries all that there are.
            limit: hits of a page, 1 to 1000.
            after: the cursor of the page before, which must be of the same search.
            marks: put around what was found.

        Raises:
            InputError: a value is of the wrong type, a filter's does not exist, or the cursor is of another search.
        """
        if not isinstance(query, str):
            raise InputError(f"query: expected a text, got a {type(query).__name__}")
        if not isinstance(marks, tuple | list) or len(marks) != 2 or not all(isinstance(mark, str) for mark in marks):
            raise InputError(f"marks: {marks!r:.80} are not two texts")
        _check("by", by, get_args(By))
        _check("kind", kind, (None, *get_args(Kind)))
        _check("role", role, (None, *Role))
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LARGEST_PAGE:
            raise InputError(f"limit: {limit!r} is not a number from 1 to {LARGEST_PAGE}")
        for name, moment in (("since", since), ("until", until)):
            if moment is not None and (not isinstance(moment, datetime) or moment.tzinfo is None):
                raise InputError(f"{name}: {moment!r} is no datetime with a time zone")
        for name, text in (("actor", actor), ("language", language), ("after", after), ("marks", "".join(marks))):
            check_text(text or "", name)
        parameters = {
            "query": _NO_TEXT.sub(" ", query),
            "tenant": self._caller.tenant,
            "by": by,
            "kind": kind,
            "role": role,
            "actor": actor,
            "conversation": None if conversation is None else parse_uuid(conversation, "conversation"),
            "since": since,
            "until": until,
            "language": language,
            "limit": limit,
            "after": after,
            "opening": marks[0],
            "closing": marks[1],
        }
        rows = await self._store.tables(self._caller).fetch(_SEARCH, parameters)
        hits = [Hit(*row[:11]) for row in rows]
        return SearchPage(hits, rows[0][11] if rows else query, rows[-1][12] if len(rows) == limit else None)


def _check(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}: {value!r} is unknown: choose among {', '.join(filter(None, known))}")
