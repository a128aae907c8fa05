"""``eventstore tenants | users | keys``: who may call."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime
from uuid import uuid4

import psycopg
import pytest
from support.authentication import is_rejected
from support.commandline import STRANGE, Eventstore, rows_of

from agent_manager.auth import Authenticator, Identity
from agent_manager.cli.main import Commands
from eventstore import EventStore, Settings

pytestmark = [pytest.mark.shared_database, pytest.mark.usefixtures("no_tenants")]


@pytest.fixture
def acme(empty: Eventstore) -> Eventstore:
    """The command line, with the tenant acme and its user ana."""
    assert empty("tenants", "add", "acme", "--name", "ACME Ltd").code == 0
    assert empty("users", "add", "ana", "--tenant", "acme").code == 0
    return empty


def test_tenants_are_added_suspended_and_resumed(empty: Eventstore) -> None:
    assert empty("tenants", "list").err.startswith("no tenants yet")
    assert empty("tenants", "add", "acme", "--name", "ACME Ltd").out == "tenant acme added\n"
    assert empty("tenants", "suspend", "acme").out == "tenant acme suspended\n"
    header, row = empty("tenants", "list").lines
    assert header.split() == ["id", "name", "created", "suspended"]
    assert re.fullmatch(r"acme +ACME Ltd +[-0-9]+ [:0-9]+Z +[-0-9]+ [:0-9]+Z", row)
    assert empty("tenants", "resume", "acme").out == "tenant acme resumed\n"
    [listed] = rows_of(empty, "tenants", "list")
    assert (listed["id"], listed["name"], listed["suspended_at"]) == ("acme", "ACME Ltd", None)


def test_logins_are_bound_listed_and_unbound(acme: Eventstore, superuser_url: str) -> None:
    login = f"login_{uuid4().hex[:12]}"
    assert acme("tenants", "logins").err.startswith("no login is bound")
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN".encode())
        assert acme("tenants", "bind", "acme", login).out == f"login {login} bound to tenant acme\n"
        assert [line.split() for line in acme("tenants", "logins").lines] == [["login", "tenant"], [login, "acme"]]
        assert acme("tenants", "unbind", login).out == f"login {login} is bound to no tenant\n"
        connection.execute(f"DROP ROLE {login}".encode())
    assert rows_of(acme, "tenants", "logins") == []
    assert "eventstore tenants logins lists" in acme("tenants", "unbind", login).err


def test_users_are_added_disabled_and_enabled(acme: Eventstore) -> None:
    assert acme("users", "add", "bot", "--agent", "--tenant", "acme").out == "agent bot added\n"
    assert acme("users", "disable", "ana", "--tenant", "acme").out == "user ana disabled\n"
    lines = acme("users", "list", "--tenant", "acme").lines
    assert [line.split()[:2] for line in lines] == [["id", "kind"], ["ana", "user"], ["bot", "agent"]]
    assert acme("users", "enable", "ana", "--tenant", "acme").out == "user ana enabled\n"
    rows = rows_of(acme, "users", "list", "--tenant", "acme")
    assert [(row["id"], row["disabled_at"]) for row in rows] == [("ana", None), ("bot", None)]


def identified(settings: Settings, token: str) -> Identity | None:
    """Return the identity of a token; None if it is rejected."""

    async def ask() -> Identity | None:
        async with EventStore(settings) as store, Authenticator(store, settings) as authenticator:
            return None if await is_rejected(authenticator, token) else await authenticator.identify(token)

    return asyncio.run(ask())


def test_a_key_is_shown_once_and_alone(acme: Eventstore, settings: Settings) -> None:
    result = acme("keys", "add", "laptop", "--tenant", "acme", "--user", "ana", "--scope", "read", "--scope", "audit")
    token = result.out.strip()
    assert re.fullmatch(r"es_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", token)
    assert "shown once" in result.err
    listed = acme("keys", "list", "--tenant", "acme")
    assert token.split("_")[1] in listed.out
    assert token.split("_", 2)[2] not in listed.out + acme("keys", "list", "--tenant", "acme", "--json").out
    identity = identified(settings, token)
    assert identity is not None
    assert (identity.user, identity.scopes) == ("ana", {"read", "audit"})


def test_a_key_is_revoked(acme: Eventstore, settings: Settings) -> None:
    made = json.loads(acme("keys", "add", "billing", "--tenant", "acme", "--expires", "never", "--json").out)
    assert made["key"]["expires_at"] is None
    assert made["key"]["scopes"] == ["read", "write"]
    revoked = acme("keys", "revoke", made["key"]["id"], "--tenant", "acme")
    assert revoked.out == f"key {made['key']['id']} revoked\n"
    assert identified(settings, made["token"]) is None
    [row] = rows_of(acme, "keys", "list", "--tenant", "acme")
    assert (row["state"], row["last_used_at"]) == ("revoked", None)


@pytest.mark.parametrize("length", [60, 17])
def test_a_key_that_is_given_instead_of_its_id_is_not_printed(acme: Eventstore, length: int) -> None:
    token = acme("keys", "add", "laptop", "--tenant", "acme").out.strip()
    result = acme("keys", "revoke", token[:length], "--tenant", "acme")
    assert result.code == 1
    assert result.err.endswith(f"this is the key itself, with its secret: give its id alone, {token[3:15]}\n")
    assert token[:length] not in result.err


@pytest.mark.parametrize(("lifetime", "days"), [("90m", 0.0625), ("12h", 0.5), ("90d", 90), ("4w", 28), (None, 90)])
def test_a_key_expires_after_the_given_time(acme: Eventstore, lifetime: str | None, days: float) -> None:
    acme("keys", "add", "laptop", "--tenant", "acme", *(["--expires", lifetime] if lifetime else []))
    [row] = rows_of(acme, "keys", "list", "--tenant", "acme")
    began, ends = (_seconds(row[name]) for name in ("created_at", "expires_at"))
    assert ends - began == days * 86400


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tenants", "add", "acme"], "tenant acme exists already"),
        (["tenants", "add", ""], "is not a name"),
        (["tenants", "suspend", "globex"], "tenant globex does not exist: eventstore tenants add TENANT adds one"),
        (["users", "list", "--tenant", "globex"], "tenant globex does not exist"),
        (["users", "add", "ana", "--tenant", "acme"], "has a user ana already"),
        (["users", "add", "key:x", "--tenant", "acme"], "begins like the actor of a key"),
        (["users", "disable", "bob", "--tenant", "acme"], "has no user bob: eventstore users add USER"),
        (["keys", "add", "x", "--tenant", "acme", "--user", "bob"], "has no user bob"),
        (["keys", "add", "x", "--tenant", "acme", "--expires", "4y"], "--expires 4y: is not a duration"),
        (["keys", "add", "x", "--tenant", "acme", "--expires", "0d"], "--expires 0d: is not a duration"),
        (["keys", "add", "x", "--tenant", "acme", "--expires", "99999999w"], "at most a hundred years"),
        (["keys", "revoke", "nothing", "--tenant", "acme"], "has no key nothing: eventstore keys list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_are_printed_in_one_line(acme: Eventstore, arguments: list[str], expected: str) -> None:
    result = acme(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("eventstore: error: ")
    assert expected in result.err
    assert len(result.err.splitlines()) == 1


def _commands_with_a_tenant() -> list[list[str]]:
    """Return every command that takes --tenant, with values for its arguments."""
    found = []
    for name, command in Commands().items():
        for path, each in [((name, sub), leaf) for sub, leaf in getattr(command, "commands", {}).items()] or [
            ((name,), command)
        ]:
            if any("--tenant" in parameter.opts for parameter in each.params):
                needed = [p for p in each.params if p.param_type_name == "argument" and p.required]
                found.append([*path, *("x" for _ in needed)])
    return found


@pytest.mark.slow
def test_a_tenant_that_does_not_exist_is_refused_with_those_that_do_by_every_command(acme: Eventstore) -> None:
    for number in range(11):
        assert acme("tenants", "add", f"tenant-{number:02}").code == 0
    for arguments in _commands_with_a_tenant():
        command = arguments
        further = {"import": ["missing.jsonl"], "compare": ["y"]}.get(command[0], [])  # one of several is needed
        if command[0] == "erase" and command[-1] == "x" and command[1] != "apply":
            further = ["--yes"]
        valid = {"hold add": ["tenant", "--reason", "r"], "retention add": ["30d"]}
        identified = ("hold remove", "retention remove")
        if (name := " ".join(command[:2])) in valid:
            command = [*command[:2], *valid[name]]
        elif name in identified:
            command = [*command[:2], "7b6c0e02-1f0e-4d0c-9a43-0f6f1d0b7f2e"]
        result = acme(*command, *further, "--tenant", "acm")
        assert (result.code, result.out) == (1, ""), command
        assert (
            "tenant acm does not exist: eventstore tenants add TENANT adds one; these exist: acme, tenant-00"
            in result.err
        ), command
        assert result.err.endswith("tenant-08, and more\n"), command


def test_a_tenant_with_events_exists_although_it_was_not_added(
    acme: Eventstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTSTORE_TENANT", "configured")  # the store's own tenant: what it writes needs no other step
    assert acme("seed").code == 0
    monkeypatch.delenv("EVENTSTORE_TENANT")
    assert len(rows_of(acme, "history", "--tenant", "configured")) == 15
    refused = acme("conversations", "--tenant", "another")
    assert "these exist: acme, " in refused.err
    assert "configured" in refused.err


def test_an_unknown_scope_is_wrong_usage(acme: Eventstore) -> None:
    result = acme("keys", "add", "x", "--tenant", "acme", "--scope", "everything")
    assert result.code == 2
    assert "'everything' is not one of 'read', 'write', 'audit', 'erase', 'admin'" in result.err


def test_names_cannot_control_the_terminal(empty: Eventstore) -> None:
    for arguments in (["tenants", "add", STRANGE], ["users", "add", STRANGE, "--tenant", STRANGE],
                      ["tenants", "list"], ["users", "list", "--tenant", STRANGE]):  # fmt: skip
        result = empty(*arguments)
        assert result.code == 0
        assert not any(c in result.out for c in "\x1b\x07\x9b")
