"""Full-text search in messages and tasks: typed hits, a page at a time, by the SQL function ``search_for``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, get_args
from uuid import UUID

from eventstore import Caller, EventStore, Role
from eventstore.database.queries import query as sql_text
from eventstore.errors import InputError
from eventstore.ids import parse_uuid
from eventstore.json_text import check_text
from eventstore.read import Filter
from projections.pages import Page
from projections.reading import caller_of, check_choice

_SEARCH = sql_text("projections", "search")

SearchOrder: TypeAlias = Literal["relevance", "time"]
HitKind: TypeAlias = Literal["message", "task", "status", "artifact", "conversation"]

MAX_PAGE = 1000

_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
"""Characters that no stored text contains; a query ignores them."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A result of a search.

    Attributes:
        kind: ``message``, ``task`` (the description of one), ``status`` (the message of a task's status), ``artifact``,
            or ``conversation`` (the name of one).
        id: the id of the message, of the task, or of the conversation.
        version: the version of the event in its conversation.
        role: of a message; None for tasks.
        created_at: when it happened, if the event says so; otherwise when it was appended.
        language: a code such as ``pt``; ``und`` if it is not known.
        rank: how well it matches; 0 if the results are ordered by time.
        snippet: the matching passages as plain text, not HTML, with marks around the matches.
    """

    kind: HitKind
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


class SearchPage(Page[Hit]):
    """A page of results.

    Attributes:
        searched: the query that was used: the given one; if that finds nothing, the one with misspelt words corrected;
            if neither does, one that leaves out some of the words.
    """

    def __init__(self, items: Iterable[Hit] = (), next: str | None = None, *, searched: str) -> None:
        super().__init__(items, next)
        self.searched = searched


class Search:
    """A search in the messages and tasks of one tenant, or those that a user may see, except in deleted conversations.

    Args:
        tenant: by default that of the store.
        caller: the tenant, and the user if only what they may see is searched; instead of ``tenant``.
    """

    def __init__(self, store: EventStore, tenant: str | None = None, *, caller: Caller | None = None) -> None:
        self._store = store
        self._caller = caller_of(store, tenant, caller)

    async def page(
        self,
        query: str,
        *,
        by: SearchOrder = "relevance",
        kind: HitKind | None = None,
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
        """Return a page of the results of a query.

        Args:
            query: words that must all occur, in any of their forms, with or without accents; ``"a phrase"``: these
                words as they are, adjacent and in this order; ``-without``; ``one or another``; ``begins*``. Any text
                is a query; it is cut after a thousand characters or forty words.
            by: ``relevance``, the best first, of the latest four hundred matches; ``time``, the latest first.
            kind: ``message``; ``task``: descriptions, messages of statuses, artifacts; ``status``; ``artifact``;
                ``conversation``.
            role, actor, conversation: only results of this one.
            since, until: a half-open range of ``created_at``, aware.
            language: of the query, such as ``pt`` or ``en-US``; None tries all languages of the tenant's documents.
            limit: results of a page, 1 to 1000.
            after: the cursor of the page before, which must be of the same search.
            marks: put around matches.

        Raises:
            InputError: a value has the wrong type or is unknown, or the cursor is of another search.
        """
        if not isinstance(query, str):
            raise InputError(f"query: expected a text, got a {type(query).__name__}")
        if not isinstance(marks, tuple | list) or len(marks) != 2 or not all(isinstance(mark, str) for mark in marks):
            raise InputError(f"marks: {marks!r:.80} are not two texts")
        check_choice(by, "by", get_args(SearchOrder))
        check_choice(kind, "kind", (None, *get_args(HitKind)))
        check_choice(role, "role", (None, *Role))
        Filter(None, actor, since, until)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise InputError(f"limit: {limit!r} is not a number from 1 to {MAX_PAGE}")
        for name, text in (("language", language), ("after", after), ("marks", "".join(marks))):
            check_text(text or "", name)
        parameters = {
            "query": _NOT_STORABLE.sub(" ", query),
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
        with self._store.metrics.searching():
            rows = await self._store.tables(self._caller).fetch(_SEARCH, parameters)
        return SearchPage(
            (Hit(*row[:11]) for row in rows),
            rows[-1][12] if len(rows) == limit else None,
            searched=rows[0][11] if rows else query,
        )
