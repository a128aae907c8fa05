"""The commands tenants, users and keys, which change the directory."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from typer import Argument, Option

from agent_manager.auth import Directory, Key, TokenScope
from agent_manager.cli.ids import find_key
from agent_manager.cli.options import DataDir, Json, Reason, Tenant, duration_option, read_settings, run
from agent_manager.cli.output import RowFormat, print_json, print_remark, print_result, print_rows
from eventstore import EventStore
from eventstore.errors import printable

tenants = typer.Typer(help="Add, list, suspend tenants; bind logins of the server to one.")

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


users = typer.Typer(help="Add, list, disable the users and agents of a tenant.")

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


keys = typer.Typer(help="Add, list, revoke the keys of a tenant.")


@keys.command("add")
def keys_add(
    name: Annotated[str, Argument(metavar="NAME", help="What the key is for.")],
    user: Annotated[
        str | None, Option(metavar="USER", help="The user on whose behalf it acts; by default the whole tenant.")
    ] = None,
    scope: Annotated[
        list[TokenScope] | None, Option(help="A permission; may be repeated. By default read and write.")
    ] = None,
    expires: Annotated[str, Option(metavar="TIME", help="How long it is valid: 30m, 12h, 90d, 4w, or never.")] = "90d",
    reason: Reason = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Add a key and show it, once.

    Only its hash is stored: a lost key has to be replaced. Standard output has the key alone.
    """
    lifetime = None if expires == "never" else duration_option(expires, "--expires", ", or never")
    scopes = scope or (TokenScope.READ, TokenScope.WRITE)
    new = run(
        lambda store: Directory(store).add_key(store.tenant, name, user=user, scopes=scopes, lifetime=lifetime),
        read_settings(data_dir, tenant, reason=reason),
    )
    if as_json:
        print_json({"token": new.token.get_secret_value(), "key": new.key})
    else:
        sys.stdout.write(new.token.get_secret_value() + "\n")
        print_remark("this is shown once: store it where only its bearer can read it")


@keys.command("list")
def keys_list(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """List the keys of a tenant, with their last use (up to a minute late), without their secrets."""
    print_rows(
        run(lambda store: Directory(store).keys(store.tenant), read_settings(data_dir, tenant)),
        RowFormat(
            ("id", "name", "user", "scopes", "created", "expires", "last used", "state"),
            lambda row: (
                row.id, row.name, row.user, " ".join(row.scopes), row.created_at, row.expires_at, row.last_used_at,
                row.state,
            ),
        ),
        nothing="no keys yet: eventstore keys add NAME adds one",
        as_json=as_json,
    )  # fmt: skip


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, Argument(metavar="ID", help="The key's id, as listed, or its beginning.")],
    reason: Reason = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    tenant: Tenant = None,
) -> None:
    """Revoke a key permanently; takes effect everywhere within a second."""

    async def revoke(store: EventStore) -> Key:
        directory = Directory(store)
        return await directory.revoke_key(store.tenant, await find_key(directory, store.tenant, key))

    revoked = run(revoke, read_settings(data_dir, tenant, reason=reason))
    print_result(revoked, f"key {revoked.id} revoked", as_json=as_json)
