"""The commands keys add, list and revoke."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Annotated

import typer
from typer import Argument, Option

from agent_manager.auth import Directory, Key, TokenScope
from agent_manager.cli.ids import find_key
from agent_manager.cli.options import DataDir, Json, Reason, Tenant, read_settings, run
from agent_manager.cli.output import RowFormat, print_json, print_remark, print_result, print_rows
from eventstore import EventStore
from eventstore.errors import InputError, printable

keys = typer.Typer(help="Add, list, revoke the keys of a tenant.", no_args_is_help=True, rich_markup_mode=None)

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


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
    lifetime = _lifetime(expires)
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
