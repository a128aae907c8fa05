"""The commands tenants, users and keys."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Annotated

import typer

from agent_manager.auth import Directory, Scope, User
from agent_manager.auth import Tenant as StoredTenant
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, print_table
from eventstore import EventStore
from eventstore.errors import InputError, printable

# The commands about tenants: tenants add, list, suspend, resume, bind, unbind, logins

tenants = typer.Typer(
    help="Add, list, suspend tenants; bind logins of the server to one.", no_args_is_help=True, rich_markup_mode=None
)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
Login = Annotated[str, typer.Argument(metavar="LOGIN", help="A login of the PostgreSQL server.")]
Name = Annotated[str, typer.Option("--name", help="A name for people.", show_default=False)]


def _add_tenants(app: typer.Typer) -> None:
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


def _say(tenant: StoredTenant, done: str, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        typer.echo(f"tenant {printable(tenant.id)} {done}")


# The commands about users and agents: users add, list, disable, enable

users = typer.Typer(
    help="Add, list, disable the users and agents of a tenant.", no_args_is_help=True, rich_markup_mode=None
)

UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id: the actor of what they cause.")]


def _add_users(app: typer.Typer) -> None:
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
        _users_say(await Directory(store).add_user(store.tenant, user, name, agent=agent), "added", as_json)

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
        _users_say(await Directory(store).disable_user(store.tenant, user), "disabled", as_json)

    run(work, read_settings(data_dir, tenant))


@users.command("enable")
def users_enable(user: UserId, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Let a disabled user in again."""

    async def work(store: EventStore) -> None:
        _users_say(await Directory(store).disable_user(store.tenant, user, disabled=False), "enabled", as_json)

    run(work, read_settings(data_dir, tenant))


def _users_say(user: User, done: str, as_json: bool) -> None:
    if as_json:
        print_json(user)
    else:
        typer.echo(f"{user.kind} {printable(user.id)} {done}")


# The commands about static keys: keys add, list, revoke

keys = typer.Typer(help="Add, list, revoke the keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _add_keys(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(keys, name="keys")


@keys.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Who bears it. Without: the whole tenant.", show_default=False),
    ] = None,
    scope: Annotated[
        list[Scope] | None,
        typer.Option("--scope", help="What it allows; may be repeated. Without: read and write.", show_default=False),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long it lasts: 30m, 12h, 90d, 4w, or never.")
    ] = "90d",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Make a key and show it, this once.

    Only its hash is kept: who loses it needs another one. Standard output has the key alone.
    """
    lifetime = _lifetime(expires)

    async def work(store: EventStore) -> None:
        new = await Directory(store).add_key(
            store.tenant, name, user=user, scopes=scope or (Scope.READ, Scope.WRITE), lifetime=lifetime
        )
        if as_json:
            print_json({"token": new.token.get_secret_value(), "key": new.key})
        else:
            sys.stdout.write(new.token.get_secret_value() + "\n")
            errors.print("this is shown once: keep it where only its bearer can read it", soft_wrap=True)

    run(work, read_settings(data_dir, tenant))


@keys.command("list")
def keys_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the keys of a tenant, with their last use (up to a minute late), without their secrets."""

    async def work(store: EventStore) -> None:
        rows = await Directory(store).keys(store.tenant)
        if as_json:
            print_json(rows)
        else:
            print_table(
                ("id", "name", "user", "scopes", "created", "expires", "last used", "state"),
                [
                    (row.id, row.name, row.user, " ".join(row.scopes), row.created_at, row.expires_at,
                     row.last_used_at, row.state)
                    for row in rows
                ],
                nothing="no keys yet: eventstore keys add makes one",
            )  # fmt: skip

    run(work, read_settings(data_dir, tenant))


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as listed.")],
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Have a key refused for good, within a second, wherever it is used."""

    async def work(store: EventStore) -> None:
        revoked = await Directory(store).revoke_key(store.tenant, key)
        if as_json:
            print_json(revoked)
        else:
            typer.echo(f"key {revoked.id} revoked")

    run(work, read_settings(data_dir, tenant))


def _lifetime(text: str) -> timedelta | None:
    if text == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,7})([mhdw])", text, re.ASCII)
    if found is None:
        raise InputError(f"--expires {printable(text)}: is no time; write it like 30m, 12h, 90d, 4w, or never")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    _add_tenants(app)
    _add_users(app)
    _add_keys(app)
