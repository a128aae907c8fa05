"""The commands about tenants: ``tenants add``, ``list``, ``suspend``, ``resume``, ``bind``, ``unbind``, ``logins``."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_manager.cli.options import DataDir, Json, read_settings, run
from agent_manager.cli.output import print_json, print_table
from agent_manager.identity import Directory, Tenant
from eventstore import EventStore
from eventstore.errors import printable

tenants = typer.Typer(
    help="Add, list, suspend tenants; bind logins of the server to one.", no_args_is_help=True, rich_markup_mode=None
)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
Login = Annotated[str, typer.Argument(metavar="LOGIN", help="A login of the PostgreSQL server.")]
Name = Annotated[str, typer.Option("--name", help="A name for people.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(tenants, name="tenants")


@tenants.command("add")
def tenants_add(tenant: TenantId, name: Name = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Make a tenant known, so that it can have users and keys, and JWT may name it."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).add_tenant(tenant, name), "added", as_json)

    run(work, read_settings(data_dir))


@tenants.command("list")
def tenants_list(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the tenants."""

    async def work(store: EventStore) -> None:
        rows = await Directory(store).tenants()
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("id", "name", "created", "suspended"),
                [(row.id, row.name, row.created_at, row.suspended_at) for row in rows],
                nothing="no tenants yet: eventstore tenants add makes one",
            )

    run(work, read_settings(data_dir))


@tenants.command("suspend")
def tenants_suspend(tenant: TenantId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Let nobody of a tenant in, by whatever token, within a second. What is stored stays."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).suspend_tenant(tenant), "suspended", as_json)

    run(work, read_settings(data_dir))


@tenants.command("resume")
def tenants_resume(tenant: TenantId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Let the users of a suspended tenant in again."""

    async def work(store: EventStore) -> None:
        _say(await Directory(store).suspend_tenant(tenant, suspended=False), "resumed", as_json)

    run(work, read_settings(data_dir))


@tenants.command("bind")
def tenants_bind(tenant: TenantId, login: Login, data_dir: DataDir = None) -> None:
    """Bind a login of the server to a tenant: in SQL it sees nothing else, whatever it sets."""

    async def work(store: EventStore) -> None:
        await Directory(store).bind_login(tenant, login)
        typer.echo(f"login {printable(login)} bound to tenant {printable(tenant)}")

    run(work, read_settings(data_dir))


@tenants.command("unbind")
def tenants_unbind(login: Login, data_dir: DataDir = None) -> None:
    """Take the binding of a login away."""

    async def work(store: EventStore) -> None:
        await Directory(store).unbind_login(login)
        typer.echo(f"login {printable(login)} is bound to no tenant")

    run(work, read_settings(data_dir))


@tenants.command("logins")
def tenants_logins(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the logins of the server that are bound to a tenant."""

    async def work(store: EventStore) -> None:
        rows = await Directory(store).logins()
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("login", "tenant"),
                [(row.login, row.tenant_id) for row in rows],
                nothing="no login is bound: eventstore tenants bind binds one",
            )

    run(work, read_settings(data_dir))


def _say(tenant: Tenant, done: str, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        typer.echo(f"tenant {printable(tenant.id)} {done}")
