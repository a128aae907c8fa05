"""The commands users add, list, disable and enable."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from agent_manager.auth import Directory
from agent_manager.cli.options import DataDir, Json, Reason, Tenant, read_settings, run
from agent_manager.cli.output import RowFormat, print_result, print_rows
from agent_manager.cli.tenants import Name
from eventstore.errors import printable

users = typer.Typer(
    help="Add, list, disable the users and agents of a tenant.", no_args_is_help=True, rich_markup_mode=None
)

UserId = Annotated[str, Argument(metavar="USER", help="The user's id: the actor of the events they cause.")]


@users.command("add")
def users_add(
    user: UserId,
    name: Name = "",
    agent: Annotated[bool, Option("--agent", help="Add an agent, not a person.")] = False,
    reason: Reason = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Add a user or an agent, so that they can have keys."""
    added = run(
        lambda store: Directory(store).add_user(store.tenant, user, name, agent=agent),
        read_settings(data_dir, tenant, reason=reason),
    )
    print_result(added, f"{added.kind} {printable(added.id)} added", as_json=as_json)


@users.command("list")
def users_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the users and agents of a tenant."""
    print_rows(
        run(lambda store: Directory(store).users(store.tenant), read_settings(data_dir, tenant)),
        RowFormat(
            ("id", "kind", "name", "created", "disabled"),
            lambda row: (row.id, row.kind, row.name, row.created_at, row.disabled_at),
        ),
        nothing="no users yet: eventstore users add USER adds one",
        as_json=as_json,
    )


@users.command("disable")
def users_disable(
    user: UserId, reason: Reason = None, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None
) -> None:
    """Reject all tokens of a user; takes effect within a second."""
    disabled = run(
        lambda store: Directory(store).disable_user(store.tenant, user), read_settings(data_dir, tenant, reason=reason)
    )
    print_result(disabled, f"{disabled.kind} {printable(disabled.id)} disabled", as_json=as_json)


@users.command("enable")
def users_enable(
    user: UserId, reason: Reason = None, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None
) -> None:
    """Accept the tokens of a disabled user again."""
    enabled = run(
        lambda store: Directory(store).disable_user(store.tenant, user, disabled=False),
        read_settings(data_dir, tenant, reason=reason),
    )
    print_result(enabled, f"{enabled.kind} {printable(enabled.id)} enabled", as_json=as_json)
