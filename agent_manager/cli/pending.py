"""The command about messages that await an answer, such as those that a killed process left: ``pending``."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_manager.agents import chosen
from agent_manager.cli.options import DataDir, Json, read_settings, run
from agent_manager.cli.output import print_json, print_table
from agent_manager.manager import AsyncManager
from eventstore import EventStore
from eventstore.errors import SettingsError


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(pending)


def pending(
    answer: Annotated[
        bool, typer.Option("--answer", help="Have them answered by what EVENTSTORE_ANSWER names.")
    ] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Have them wait no longer, unanswered.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the messages that await an answer; have them answered, or given up.

    After a restart these are the messages whose answering was cut off. Messages that another process is answering
    are left to it; whether that process is still alive shows within some seconds.
    """
    if answer and abandon:
        raise typer.BadParameter("choose one of --answer and --abandon")
    settings = read_settings(data_dir)
    agent = chosen(settings)
    if answer and agent is None:
        raise SettingsError(
            "EVENTSTORE_ANSWER: names nobody who could answer: an agent's URL, package.module:function or echo"
        )

    async def work(store: EventStore) -> None:
        async with AsyncManager(store, answer=agent, runs_worker=False) as manager:
            if answer:
                answered = await manager.answer_pending()
                failed = [(one, error) for one, error in answered if error is not None]
                for one, error in failed:
                    typer.echo(f"message {one.message_id} of {one.conversation_id}: {error}", err=True)
                typer.echo(f"{len(answered) - len(failed)} answered, {len(failed)} failed")
                if left := await manager.pending():
                    typer.echo(f"{len(left)} more are being answered by another process, or have just come", err=True)
                if failed:
                    raise typer.Exit(1)
                return
            rows = await manager.pending()
            if abandon:
                for one in rows:
                    await manager.abandon(one)
                typer.echo(f"{len(rows)} given up")
            elif as_json:
                print_json(rows)
            else:
                print_table(
                    ("since", "conversation", "message", "status", ">position"),
                    [(one.since, one.conversation_id, one.message_id, one.status, one.position) for one in rows],
                    nothing="nothing is pending",
                )

    run(work, settings)
