"""The commands tenants add, list, suspend, resume, bind, unbind and logins."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from agent_manager.auth import Directory
from agent_manager.cli.options import DataDir, Json, Reason, read_settings, run
from agent_manager.cli.output import RowFormat, print_result, print_rows
from eventstore.errors import printable

tenants = typer.Typer(
    help="Add, list, suspend tenants; bind logins of the server to one.", no_args_is_help=True, rich_markup_mode=None
)

TenantId = Annotated[str, Argument(metavar="TENANT", help="The tenant's id.")]
Login = Annotated[str, Argument(metavar="LOGIN", help="A login of the PostgreSQL server.")]
Name = Annotated[str, Option("--name", help="A display name.", show_default=False)]


@tenants.command("add")
def tenants_add(
    tenant: TenantId, name: Name = "", reason: Reason = None, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Add a tenant, so that it can have users and keys, and JWT can name it."""
    added = run(lambda store: Directory(store).add_tenant(tenant, name), read_settings(data_dir, reason=reason))
    print_result(added, f"tenant {printable(added.id)} added", as_json=as_json)


@tenants.command("list")
def tenants_list(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the tenants."""
    print_rows(
        run(lambda store: Directory(store).tenants(), read_settings(data_dir)),
        RowFormat(
            ("id", "name", "created", "suspended"), lambda row: (row.id, row.name, row.created_at, row.suspended_at)
        ),
        nothing="no tenants yet: eventstore tenants add TENANT adds one",
        as_json=as_json,
    )


@tenants.command("suspend")
def tenants_suspend(tenant: TenantId, reason: Reason = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Reject all tokens of a tenant; takes effect within a second. Its data stays."""
    suspended = run(lambda store: Directory(store).suspend_tenant(tenant), read_settings(data_dir, reason=reason))
    print_result(suspended, f"tenant {printable(suspended.id)} suspended", as_json=as_json)


@tenants.command("resume")
def tenants_resume(tenant: TenantId, reason: Reason = None, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Accept the tokens of a suspended tenant again."""
    resumed = run(
        lambda store: Directory(store).suspend_tenant(tenant, suspended=False), read_settings(data_dir, reason=reason)
    )
    print_result(resumed, f"tenant {printable(resumed.id)} resumed", as_json=as_json)


@tenants.command("bind")
def tenants_bind(tenant: TenantId, login: Login, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Bind a login of the server to a tenant: in SQL it sees nothing else, whatever it sets."""
    run(lambda store: Directory(store).bind_login(tenant, login), read_settings(data_dir, reason=reason))
    typer.echo(f"login {printable(login)} bound to tenant {printable(tenant)}")


@tenants.command("unbind")
def tenants_unbind(login: Login, reason: Reason = None, data_dir: DataDir = None) -> None:
    """Remove the binding of a login."""
    run(lambda store: Directory(store).unbind_login(login), read_settings(data_dir, reason=reason))
    typer.echo(f"login {printable(login)} is bound to no tenant")


@tenants.command("logins")
def tenants_logins(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the logins of the server that are bound to a tenant."""
    print_rows(
        run(lambda store: Directory(store).logins(), read_settings(data_dir)),
        RowFormat(("login", "tenant"), lambda row: (row.login, row.tenant_id)),
        nothing="no login is bound: eventstore tenants bind TENANT LOGIN binds one",
        as_json=as_json,
    )
