"""The commands about static keys: ``keys add``, ``list``, ``revoke``."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Annotated

import typer

from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from agent_manager.cli.output import errors, print_json, print_table
from agent_manager.identity import Directory, Scope
from eventstore import EventStore
from eventstore.errors import InputError, printable

keys = typer.Typer(help="Add, list, revoke the keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_to(app: typer.Typer) -> None:
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
