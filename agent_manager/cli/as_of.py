"""The command that shows one conversation, as it is or as it was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agent_manager.cli.options import ConversationId, DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_json, print_table
from agent_manager.cli.pages import moment
from agent_manager.cli.rows import (
    MESSAGE_COLUMNS,
    TASK_COLUMNS,
    message_cells,
    message_value,
    row_value,
    task_cells,
)
from eventstore import EventStore
from projections import Reader

_LATEST = 2**63 - 1


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(conversation)


def conversation(
    conversation: ConversationId,
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="As it was at this version.", show_default=False)
    ] = None,
    position: Annotated[
        int | None,
        typer.Option("--position", min=1, help="As it was at this position of the log.", show_default=False),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="As it was known at this time, ISO 8601.", show_default=False),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Show a conversation with its messages and tasks, as it is or as it was, folded from the log itself."""
    given: dict[str, Any] = {"version": version, "position": position, "time": moment(time, "--time")}
    if all(value is None for value in given.values()):
        given["position"] = _LATEST

    async def work(store: EventStore) -> None:
        state = await Reader(store).conversation_at(conversation, **given)
        if as_json:
            print_json({
                "conversation": row_value(state.conversation),
                "messages": [message_value(message) for message in state.messages],
                "tasks": [row_value(task) for task in state.tasks],
            })  # fmt: skip
            return
        found = state.conversation
        print_table(
            ("id", "name", ">version", "active", "deleted", "updated"),
            [(found.id, found.name, found.version, found.is_active, found.is_deleted, found.updated_at)],
            nothing="",
        )
        typer.echo()
        print_table(MESSAGE_COLUMNS, map(message_cells, state.messages), nothing="no messages")
        if state.tasks:
            typer.echo()
            print_table(TASK_COLUMNS, map(task_cells, state.tasks), nothing="")

    run(work, read_settings(data_dir, tenant))
