"""The commands tenants, users and keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from agent_manager.auth import Directory, TokenScope, User
from agent_manager.auth import Tenant as StoredTenant
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, print_rows
from eventstore import EventStore
from eventstore.errors import InputError, printable

T = TypeVar("T")

tenants = typer.Typer(
    help="Add, list, suspend tenants; bind logins of the server to one.", no_args_is_help=True, rich_markup_mode=None
)
users = typer.Typer(
    help="Add, list, disable the users and agents of a tenant.", no_args_is_help=True, rich_markup_mode=None
)
keys = typer.Typer(help="Add, list, revoke the keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)

TenantId = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id.")]
UserId = Annotated[str, typer.Argument(metavar="USER", help="The user's id: the actor of the events they cause.")]
Login = Annotated[str, typer.Argument(metavar="LOGIN", help="A login of the PostgreSQL server.")]
Name = Annotated[str, typer.Option("--name", help="A display name.", show_default=False)]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(tenants, name="tenants")
    app.add_typer(users, name="users")
    app.add_typer(keys, name="keys")


def _call(
    method: Callable[[Directory, str], Coroutine[Any, Any, T]], data_dir: Path | None, tenant: str | None = None
) -> T:
    """Return what a method of the directory returns, called with the directory and the tenant."""

    async def work(store: EventStore) -> T:
        return await method(Directory(store), store.tenant)

    return run(work, read_settings(data_dir, tenant))


@tenants.command("add")
def tenants_add(tenant: TenantId, name: Name = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Add a tenant, so that it can have users and keys, and JWT can name it."""
    _print_tenant(_call(lambda directory, _: directory.add_tenant(tenant, name), data_dir), "added", as_json)


@tenants.command("list")
def tenants_list(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the tenants."""
    print_rows(
        _call(lambda directory, _: directory.tenants(), data_dir),
        ("id", "name", "created", "suspended"),
        lambda row: (row.id, row.name, row.created_at, row.suspended_at),
        nothing="no tenants yet: eventstore tenants add adds one",
        as_json=as_json,
    )


@tenants.command("suspend")
def tenants_suspend(tenant: TenantId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Reject all tokens of a tenant; takes effect within a second. Its data stays."""
    _print_tenant(_call(lambda directory, _: directory.suspend_tenant(tenant), data_dir), "suspended", as_json)


@tenants.command("resume")
def tenants_resume(tenant: TenantId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Accept the tokens of a suspended tenant again."""
    resumed = _call(lambda directory, _: directory.suspend_tenant(tenant, suspended=False), data_dir)
    _print_tenant(resumed, "resumed", as_json)


@tenants.command("bind")
def tenants_bind(tenant: TenantId, login: Login, data_dir: DataDir = None) -> None:
    """Bind a login of the server to a tenant: in SQL it sees nothing else, whatever it sets."""
    _call(lambda directory, _: directory.bind_login(tenant, login), data_dir)
    typer.echo(f"login {printable(login)} bound to tenant {printable(tenant)}")


@tenants.command("unbind")
def tenants_unbind(login: Login, data_dir: DataDir = None) -> None:
    """Remove the binding of a login."""
    _call(lambda directory, _: directory.unbind_login(login), data_dir)
    typer.echo(f"login {printable(login)} is bound to no tenant")


@tenants.command("logins")
def tenants_logins(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the logins of the server that are bound to a tenant."""
    print_rows(
        _call(lambda directory, _: directory.logins(), data_dir),
        ("login", "tenant"),
        lambda row: (row.login, row.tenant_id),
        nothing="no login is bound: eventstore tenants bind binds one",
        as_json=as_json,
    )


def _print_tenant(tenant: StoredTenant, change: str, as_json: bool) -> None:
    if as_json:
        print_json(tenant)
    else:
        typer.echo(f"tenant {printable(tenant.id)} {change}")


@users.command("add")
def users_add(
    user: UserId,
    name: Name = "",
    agent: Annotated[bool, typer.Option("--agent", help="Add an agent, not a person.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Add a user or an agent, so that they can have keys."""
    added = _call(lambda directory, of: directory.add_user(of, user, name, agent=agent), data_dir, tenant)
    _print_user(added, "added", as_json)


@users.command("list")
def users_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the users and agents of a tenant."""
    print_rows(
        _call(lambda directory, of: directory.users(of), data_dir, tenant),
        ("id", "kind", "name", "created", "disabled"),
        lambda row: (row.id, row.kind, row.name, row.created_at, row.disabled_at),
        nothing="no users yet: eventstore users add adds one",
        as_json=as_json,
    )


@users.command("disable")
def users_disable(user: UserId, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Reject all tokens of a user; takes effect within a second."""
    disabled = _call(lambda directory, of: directory.disable_user(of, user), data_dir, tenant)
    _print_user(disabled, "disabled", as_json)


@users.command("enable")
def users_enable(user: UserId, as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Accept the tokens of a disabled user again."""
    enabled = _call(lambda directory, of: directory.disable_user(of, user, disabled=False), data_dir, tenant)
    _print_user(enabled, "enabled", as_json)


def _print_user(user: User, change: str, as_json: bool) -> None:
    if as_json:
        print_json(user)
    else:
        typer.echo(f"{user.kind} {printable(user.id)} {change}")


@keys.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Its bearer; by default the whole tenant.", show_default=False),
    ] = None,
    scope: Annotated[
        list[TokenScope] | None,
        typer.Option("--scope", help="A permission; may be repeated. By default read and write.", show_default=False),
    ] = None,
    expires: Annotated[
        str, typer.Option("--expires", metavar="TIME", help="How long it is valid: 30m, 12h, 90d, 4w, or never.")
    ] = "90d",
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Add a key and show it, once.

    Only its hash is stored: a lost key has to be replaced. Standard output has the key alone.
    """
    lifetime = _lifetime(expires)
    scopes = scope or (TokenScope.READ, TokenScope.WRITE)
    new = _call(
        lambda directory, of: directory.add_key(of, name, user=user, scopes=scopes, lifetime=lifetime), data_dir, tenant
    )
    if as_json:
        print_json({"token": new.token.get_secret_value(), "key": new.key})
    else:
        sys.stdout.write(new.token.get_secret_value() + "\n")
        errors.print("this is shown once: store it where only its bearer can read it", soft_wrap=True)


def _lifetime(text: str) -> timedelta | None:
    if text == "never":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,7})([mhdw])", text, re.ASCII)
    if match is None:
        raise InputError(f"--expires {printable(text)}: is not a duration: write it as 30m, 12h, 90d, 4w, or never")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@keys.command("list")
def keys_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the keys of a tenant, with their last use (up to a minute late), without their secrets."""
    print_rows(
        _call(lambda directory, of: directory.keys(of), data_dir, tenant),
        ("id", "name", "user", "scopes", "created", "expires", "last used", "state"),
        lambda row: (
            row.id, row.name, row.user, " ".join(row.scopes), row.created_at, row.expires_at, row.last_used_at,
            row.state,
        ),
        nothing="no keys yet: eventstore keys add adds one",
        as_json=as_json,
    )  # fmt: skip


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as listed.")],
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Revoke a key permanently; takes effect everywhere within a second."""
    revoked = _call(lambda directory, of: directory.revoke_key(of, key), data_dir, tenant)
    if as_json:
        print_json(revoked)
    else:
        typer.echo(f"key {revoked.id} revoked")
