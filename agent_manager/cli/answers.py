"""The commands pending and cancel, which need the agent that EVENTSTORE_ANSWER names."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from agent_manager.agents import agent_from_settings
from agent_manager.cli.conversations import ConversationId
from agent_manager.cli.ids import find_conversation, find_task
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import RowFormat, print_json, print_remark, print_result, print_rows, text
from agent_manager.factory import AsyncManager
from eventstore import EventStore
from eventstore.errors import SettingsError
from projections import Reader


def pending(
    answer: Annotated[bool, Option("--answer", help="Let the agent that EVENTSTORE_ANSWER names answer them.")] = False,
    abandon: Annotated[bool, Option("--abandon", help="Abandon them, without an answer.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the messages that await an answer; let an agent answer them, or abandon them.

    After a restart these are the messages whose processing was interrupted. Messages that another process is answering
    are left to it; it takes some seconds to notice that a process has ended.
    """
    if answer and abandon:
        raise typer.BadParameter("choose one of --answer and --abandon")
    settings = read_settings(data_dir)
    agent = agent_from_settings(settings)
    if answer and agent is None:
        raise SettingsError(
            "EVENTSTORE_ANSWER: names no agent: give an agent's URL, package.module:function, or echo for a test"
        )

    async def work(store: EventStore) -> None:
        async with AsyncManager(store, answer=agent, runs_worker=False) as manager:
            if answer:
                await _answer_pending(manager, as_json)
                return
            rows = await manager.pending()
            if abandon:
                for row in rows:
                    await manager.abandon(row)
                print_result({"abandoned": len(rows)}, f"{len(rows)} abandoned", as_json=as_json)
            else:
                print_rows(
                    rows,
                    RowFormat(
                        ("since", "conversation", "message", ">position", "progress"),
                        lambda row: (row.since, row.conversation_id, row.message_id, row.position, row.status),
                    ),
                    nothing="nothing is pending",
                    as_json=as_json,
                )

    run(work, settings)


async def _answer_pending(manager: AsyncManager, as_json: bool) -> None:
    answered = await manager.answer_pending()
    failed = [(row, error) for row, error in answered if error is not None]
    for row, error in failed:
        print_remark(text(f"message {row.message_id} of {row.conversation_id}: {error}"))
    numbers = {"answered": len(answered) - len(failed), "failed": len(failed)}
    print_result(numbers, f"{numbers['answered']} answered, {numbers['failed']} failed", as_json=as_json)
    if left := await manager.pending():
        print_remark(f"{len(left)} more are being answered by another process, or have just arrived")
    if failed:
        raise typer.Exit(1)


def cancel(
    conversation: ConversationId,
    task: Annotated[
        str,
        Argument(
            metavar="TASK",
            help="The id of the task, its agent's or that in the tables, or its beginning, if no other id begins so.",
        ),
    ],
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Cancel a task at the agent that EVENTSTORE_ANSWER names, and store the state that the agent returns."""
    settings = read_settings(data_dir, tenant)
    agent = agent_from_settings(settings)

    async def work(store: EventStore) -> None:
        async with AsyncManager(store, answer=agent, runs_worker=False) as manager:
            fold = await manager.conversation_fold(await find_conversation(Reader(store), conversation))
            canceled = await manager.task_requests.cancel(fold, find_task(fold, task))
        if as_json:
            print_json(canceled)
        else:
            typer.echo(f"task {canceled['id']}: {canceled['status']['state']}")

    run(work, settings, tenant)
