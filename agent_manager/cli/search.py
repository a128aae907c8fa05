"""The command search."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, cast

import typer

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, print_table
from eventstore import EventStore
from eventstore.errors import InputError
from projections import Reader, Search
from projections.search import LARGEST_PAGE, By, Kind

Words = Annotated[str, typer.Argument(metavar="QUERY", help="What to search for. One argument: quote it.")]
OnlyKind = Annotated[str | None, typer.Option("--kind", help="Only a message or a task.", show_default=False)]
OnlyRole = Annotated[str | None, typer.Option("--role", help="Only messages of this role.", show_default=False)]
User = Annotated[str | None, typer.Option("--user", help="Only what this actor said or caused.", show_default=False)]
In = Annotated[
    str | None,
    typer.Option("--conversation", metavar="ID", help="Only in this conversation.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Not before, as 2026-01-31 or 2026-01-31T12:00+01:00.", show_default=False
    ),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before.", show_default=False)]
Order = Annotated[str, typer.Option("--by", help="relevance: the best first; time: the latest first.")]
Language = Annotated[
    str | None,
    typer.Option(
        "--language", help="Of the query, as pt or en-US; all that the texts have are tried.", show_default=False
    ),
]
PageSize = Annotated[int, typer.Option("--limit", "-n", min=1, max=LARGEST_PAGE, help="At most so many.")]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="Go on behind the page that gave it.", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(search)


def search(
    query: Words,
    kind: OnlyKind = None,
    role: OnlyRole = None,
    user: User = None,
    conversation: In = None,
    since: Since = None,
    until: Until = None,
    by: Order = "relevance",
    language: Language = None,
    limit: PageSize = 20,
    after: After = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Search what messages and tasks say, tool calls and structured data included.

    Words are found in all their forms, with accents or without, in several languages. All words are wanted; also
    "a phrase", -without, one or another, begins*. Where nothing fits, words that look misspelt are corrected.
    """

    async def work(store: EventStore) -> None:
        found = None if conversation is None else (await Reader(store).conversation(conversation)).id
        page = await Search(store).page(
            query,
            by=cast(By, by),
            kind=cast(Kind | None, kind),
            role=role,
            actor=user,
            conversation=found,
            since=_moment(since, "--since"),
            until=_moment(until, "--until"),
            language=language,
            limit=limit,
            after=after,
        )
        if page.searched != query:
            errors.print(f"nothing fits; this does: {page.searched}", soft_wrap=True, markup=False)
        if as_json:
            print_json(page)
            return
        print_table(
            ("time", "conversation", "kind", "role", "actor", "content"),
            [(h.created_at, h.conversation_id, h.kind, h.role, h.actor, h.snippet) for h in page.hits],
            nothing="nothing fits",
        )
        if page.cursor is not None:
            errors.print(f"there is more: --after {page.cursor}", soft_wrap=True, markup=False)

    run(work, read_settings(data_dir, tenant))


def _moment(text: str | None, name: str) -> datetime | None:
    """A time as it is typed; without a time zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"{name} {text}: is no time: write it as 2026-01-31 or 2026-01-31T12:00+01:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
