"""The directory of tenants, users and keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from pydantic import SecretStr

from agent_manager.auth.identity import Scope
from agent_manager.auth.keys import StaticKey
from eventstore import EventStore
from eventstore.database.connection import APP
from eventstore.database.queries import query
from eventstore.errors import ConflictError, InputError, InvalidEvent, NotFound, printable, translated
from eventstore.json_text import check_text
from eventstore.scope import Caller, checked_tenant

# Tenants, users and keys as they are listed


@dataclass(frozen=True, slots=True)
class Tenant:
    """A customer, behind a wall.

    Attributes:
        suspended_at: since when nobody of it is let in; None: they are.
    """

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class BoundLogin:
    """A login of the PostgreSQL server that sees one tenant."""

    login: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class User:
    """Somebody within a tenant.

    Attributes:
        kind: ``user`` or ``agent``.
        disabled_at: since when they are not let in; None: they are.
    """

    id: str
    kind: str
    name: str
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A static key, without its secret.

    Attributes:
        user: who bears it; None: it acts for the whole tenant.
        last_used_at: up to a minute late; None: never.
        state: ``active``, or why it lets nobody in: ``revoked``, ``expired``, ``suspended`` (the tenant), ``disabled``
            (the user).
    """

    id: str
    tenant: str
    user: str | None
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    state: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made just now.

    Attributes:
        token: what its bearer shows. It is kept nowhere: whoever loses it needs another key.
    """

    key: Key
    token: SecretStr


# What tenants, users and keys may be called

KEY_ACTOR = "key:"
"""Begins the actor of what is caused by a key that belongs to no user."""


def checked_user(user: str) -> str:
    """The user's id.

    Raises:
        InvalidEvent: it is empty, too long, not storable, or could be taken for a key's.
    """
    Caller("-", user)
    if user.startswith(KEY_ACTOR):
        raise InvalidEvent("user", f"{user!r} begins like the actor of a key: choose another id")
    return user


def checked_name(name: str, longest: int = 255) -> str:
    """The name of something, which may be empty.

    Raises:
        InvalidEvent: it is too long or not storable.
    """
    check_text(name, "name", longest=longest)
    return name


def checked_key_name(name: str) -> str:
    """The name of a key.

    Raises:
        InvalidEvent: it is empty, too long or not storable.
    """
    if not name:
        raise InvalidEvent("name", "a key needs one: say what it is for")
    return checked_name(name, longest=100)


# The directory: adding, listing and shutting out tenants, users and keys

OWNER = "eventstore_owner"
LONGEST_LIFE = timedelta(days=36_500)


class Directory:
    """Who may call. Each method is one statement on a connection of its own: this is for people, not for requests.

    All raise ``InvalidEvent`` for names that cannot be stored and ``NotFound`` for tenants, users and keys that are not
    there.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def add_tenant(self, tenant: str, name: str = "") -> Tenant:
        """Makes a tenant known.

        Raises:
            ConflictError: it is.
        """
        parameters = {"id": checked_tenant(tenant), "name": checked_name(name)}
        if not (rows := await self._fetch("add_tenant", parameters)):
            raise ConflictError(f"there is a tenant {printable(tenant)} already: choose another id")
        return Tenant(*rows[0])

    async def tenants(self) -> list[Tenant]:
        """All tenants, by id."""
        return [Tenant(*row) for row in await self._fetch("tenants", {})]

    async def suspend_tenant(self, tenant: str, *, suspended: bool = True) -> Tenant:
        """Lets nobody of the tenant in, or everybody again; what is stored stays."""
        rows = await self._fetch("suspend_tenant", {"id": checked_tenant(tenant), "suspended": suspended})
        if not rows:
            raise _no_tenant(tenant)
        return Tenant(*rows[0])

    async def add_user(self, tenant: str, user: str, name: str = "", *, agent: bool = False) -> User:
        """Makes a user or an agent known.

        Raises:
            ConflictError: they are.
        """
        parameters = {
            "tenant": checked_tenant(tenant),
            "id": checked_user(user),
            "kind": "agent" if agent else "user",
            "name": checked_name(name),
        }
        if not (rows := await self._fetch("add_user", parameters)):
            raise _no_tenant(tenant)
        is_new, *row = rows[0]
        if not is_new:
            raise ConflictError(f"tenant {printable(tenant)} has a user {printable(user)} already: choose another id")
        return User(*row)

    async def users(self, tenant: str) -> list[User]:
        """The users of a tenant, by id."""
        rows = await self._fetch("users", {"tenant": checked_tenant(tenant)})
        if not rows:
            await self._check_tenant(tenant)
        return [User(*row) for row in rows]

    async def disable_user(self, tenant: str, user: str, *, disabled: bool = True) -> User:
        """Lets a user in no more, or again, by whatever token."""
        parameters = {"tenant": checked_tenant(tenant), "id": checked_user(user), "disabled": disabled}
        if not (rows := await self._fetch("disable_user", parameters)):
            raise _no_user(tenant, user)
        return User(*rows[0])

    async def add_key(
        self,
        tenant: str,
        name: str,
        *,
        user: str | None = None,
        scopes: Iterable[Scope] = (Scope.READ, Scope.WRITE),
        lifetime: timedelta | None = None,
    ) -> NewKey:
        """Makes a key.

        Args:
            name: what it is for, in lists; without a user also the actor of what it causes: ``key:NAME``.
            user: who bears it; None: it acts for the whole tenant.
            scopes: what it allows; at least one.
            lifetime: after which it is refused; None: never.

        Raises:
            InputError: no scope, or a lifetime that is not above zero and at most a hundred years.
        """
        allowed = sorted(set(scopes))
        if not allowed:
            raise InputError("scopes: a key that allows nothing is of no use: give at least one")
        if lifetime is not None and not timedelta(0) < lifetime <= LONGEST_LIFE:
            raise InputError(f"the lifetime {lifetime} is none: give one above zero and of at most a hundred years")
        key, token = StaticKey.made()
        parameters = {
            "id": key.id,
            "tenant": checked_tenant(tenant),
            "user": None if user is None else checked_user(user),
            "name": checked_key_name(name),
            "hash": key.hash,
            "scopes": [scope.value for scope in allowed],
            "lifetime": lifetime,
        }
        try:
            rows = await self._fetch("add_key", parameters)
        except NotFound:
            await self._check_tenant(tenant)
            raise _no_user(tenant, str(user)) from None
        return NewKey(Key(*rows[0]), token)

    async def keys(self, tenant: str) -> list[Key]:
        """The keys of a tenant, the oldest first."""
        rows = await self._fetch("keys", {"tenant": checked_tenant(tenant)})
        if not rows:
            await self._check_tenant(tenant)
        return [Key(*row) for row in rows]

    async def revoke_key(self, tenant: str, key: str) -> Key:
        """Has a key refused for good: within a second, wherever it is used.

        Args:
            key: its id.

        Raises:
            InputError: it is the key itself, which is not repeated.
        """
        if (name := StaticKey.named(key)) is not None:
            raise InputError(f"this is the key itself, secret and all: give its id alone, {name}")
        parameters = {"tenant": checked_tenant(tenant), "id": checked_name(key)}
        if not (rows := await self._fetch("revoke_key", parameters)):
            raise NotFound(
                f"tenant {printable(tenant)} has no key {printable(key)}: eventstore keys list shows its keys"
            )
        return Key(*rows[0])

    async def bind_login(self, tenant: str, login: str) -> None:
        """Binds a login of the server to a tenant: it sees nothing else, whatever it sets.

        Raises:
            NotFound: there is no such login or tenant.
            ConflictError: it sees every tenant anyway, as a superuser does.
        """
        await self._check_tenant(tenant)
        await self._fetch("bind_login", {"tenant": checked_tenant(tenant), "login": checked_name(login)}, role=OWNER)

    async def unbind_login(self, login: str) -> None:
        """Takes the binding away.

        Raises:
            NotFound: there is none.
        """
        if not (await self._fetch("unbind_login", {"login": checked_name(login)}, role=OWNER))[0][0]:
            raise NotFound(
                f"the login {printable(login)} is bound to no tenant: eventstore tenants logins shows those that are"
            )

    async def logins(self) -> list[BoundLogin]:
        """The logins that are bound to a tenant, by name."""
        return [BoundLogin(*row) for row in await self._fetch("logins", {}, role=OWNER)]

    async def _check_tenant(self, tenant: str) -> None:
        if not (await self._fetch("has_tenant", {"tenant": checked_tenant(tenant)}))[0][0]:
            raise _no_tenant(tenant)

    async def _fetch(self, name: str, parameters: dict[str, Any], role: str = APP) -> list[tuple[Any, ...]]:
        async with await self._store.connect(role) as connection:
            with translated():
                try:
                    cursor = await connection.execute(query("agent_manager.auth", name), parameters)
                    return await cursor.fetchall()
                except (psycopg.errors.ForeignKeyViolation, psycopg.errors.UndefinedObject) as error:
                    raise NotFound(_said(error)) from None
                except psycopg.errors.InvalidGrantOperation as error:
                    raise ConflictError(_said(error)) from None


def _said(error: psycopg.Error) -> str:
    return printable(": ".join(filter(None, (error.diag.message_primary, error.diag.message_hint))), 500)


def _no_tenant(tenant: str) -> NotFound:
    return NotFound(f"there is no tenant {printable(tenant)}: name another, or make it: eventstore tenants list, add")


def _no_user(tenant: str, user: str) -> NotFound:
    return NotFound(f"tenant {printable(tenant)} has no user {printable(user)}: eventstore users add makes one")
