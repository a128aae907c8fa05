"""The commands about users and agents: ``users add``, ``list``, ``disable``, ``enable``."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import print_json, print_table
from agent_manager.cli.tenants import Name
from agent_manager.identity import Directory, User
from eventstore import EventStore
from eventstore.errors import printable

users = typer.Typer(
    help="Add, list, disable the users and agents of a tenant.", no_args_is_help=True, rich_markup_mode=None
)

UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id: the actor of what they cause.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(users, name="users")


@users.command("add")
def users_add(
    user: UserId,
    name: Name = "",
    agent: Annotated[bool, typer.Option("--agent", help="An agent, not a person.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Make a user known, so that they can have keys."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).add_user(store.tenant, user, name, agent=agent), "added", as_json)

    run(work, read_settings(data_dir, tenant))


@users.command("list")
def users_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the users and agents of a tenant."""

    async def work(store: EventStore) -> None:
        rows = await Directory(store).users(store.tenant)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("id", "kind", "name", "created", "disabled"),
                [(row.id, row.kind, row.name, row.created_at, row.disabled_at) for row in rows],
                nothing="no users yet: eventstore users add makes one",
            )

    run(work, read_settings(data_dir, tenant))


@users.command("disable")
def users_disable(user: UserId, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Let a user in no more, by whatever token, within a second."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).disable_user(store.tenant, user), "disabled", as_json)

    run(work, read_settings(data_dir, tenant))


@users.command("enable")
def users_enable(user: UserId, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Let a disabled user in again."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).disable_user(store.tenant, user, disabled=False), "enabled", as_json)

    run(work, read_settings(data_dir, tenant))


def _say(user: User, done: str, as_json: bool) -> None:
    if as_json:
        print_json(user)
    else:
        typer.echo(f"{user.kind} {printable(user.id)} {done}")
