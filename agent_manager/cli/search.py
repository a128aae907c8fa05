"""The command search."""

from __future__ import annotations

from typing import Annotated, cast

from typer import Argument, Option

from agent_manager.cli.ids import find_conversation, given_ids
from agent_manager.cli.options import (
    Actor,
    After,
    DataDir,
    Json,
    Since,
    Tenant,
    Until,
    User,
    read_settings,
    run,
    time_option,
)
from agent_manager.cli.output import Lag, print_cursor, print_page, print_remark, print_table
from eventstore import EventStore
from projections import Reader, Search
from projections.search import MAX_PAGE, HitKind, SearchOrder


def search(
    query: Annotated[str, Argument(metavar="QUERY", help="The words to search for, as one quoted argument.")],
    kind: Annotated[
        str | None,
        Option(
            help="Only one kind: message, task (with status messages and artifacts), status, artifact, conversation."
        ),
    ] = None,
    role: Annotated[str | None, Option(help="Only messages with this role.")] = None,
    actor: Actor = None,
    conversation: Annotated[
        str | None, Option(metavar="ID", help="Only in this conversation, by its id or the beginning of it.")
    ] = None,
    since: Since = None,
    until: Until = None,
    by: Annotated[str, Option(help="relevance: the best first; time: the latest first.")] = "relevance",
    language: Annotated[
        str | None,
        Option(help="The language of the query, such as pt or en-US; by default all languages of the texts are tried."),
    ] = None,
    limit: Annotated[int, Option("--limit", "-n", min=1, max=MAX_PAGE, help="The most results.")] = 20,
    after: After = None,
    as_json: Json = False,
    user: User = None,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Search what messages and tasks say, tool calls and structured data included.

    Words are found in all their forms, with accents or without, in several languages. A result has all the words. Also
    understood: "a phrase", -without, one or another, begins*. If nothing matches, words that look misspelt are
    corrected. Before a query that begins with a dash, write --, after the options.
    """

    async def work(store: EventStore) -> None:
        lag = await Lag.wait(store, "search", *(["conversations"] if conversation is not None else []))
        reader = Reader(store, caller=store.caller(user=user))
        found = None if conversation is None else await find_conversation(reader, conversation)
        page = await Search(store, caller=reader.caller).page(
            query,
            by=cast(SearchOrder, by),
            kind=cast(HitKind | None, kind),
            role=role,
            actor=actor,
            conversation=found,
            since=time_option(since, "--since"),
            until=time_option(until, "--until"),
            language=language,
            limit=limit,
            after=after,
        )
        if page.searched != query:
            print_remark(f"nothing matches; this does: {page.searched}")
        if as_json:
            print_page(page, page.next, searched=page.searched)
            lag.print()
            return
        names = await given_ids(reader, (hit.conversation_id for hit in page))
        print_table(
            ("time", "conversation", "kind", "role", "actor", "snippet"),
            [
                (h.created_at, names.get(h.conversation_id, h.conversation_id), h.kind, h.role, h.actor, h.snippet)
                for h in page
            ],
            nothing="nothing matches",
        )
        print_cursor(page.next)
        lag.print()

    run(work, read_settings(data_dir, tenant), tenant)
