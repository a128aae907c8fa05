"""The command cancel."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument

from agent_manager.agents import agent_from_settings
from agent_manager.cli.conversations import ConversationId
from agent_manager.cli.ids import find_conversation, find_task
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_json
from agent_manager.factory import AsyncManager
from eventstore import EventStore
from projections import Reader


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
