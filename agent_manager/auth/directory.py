"""The directory of tenants, users, keys, and logins that are bound to a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from pydantic import SecretStr

from agent_manager.auth.identity import TokenScope
from agent_manager.auth.keys import StaticKey, id_in_key
from eventstore import EventStore
from eventstore.administration import SYSTEM_TENANT, set_administrator
from eventstore.database.connection import APP
from eventstore.database.queries import query
from eventstore.errors import ConflictError, EventStoreError, InputError, InvalidEvent, NotFound, printable, translated
from eventstore.json_text import check_text
from eventstore.scope import ALL_TENANTS, Caller, checked_tenant

KEY_ACTOR = "key:"
"""The prefix of the actor of events that a key without a user causes."""
MAX_LIFETIME = timedelta(days=36_500)
_OWNER = "eventstore_owner"
_NAMED_TENANTS = 10
"""The most tenants that an error names."""
_HAS_EVENTS = query("agent_manager.auth", "has_events")
_TENANTS_IN_LOG = query("agent_manager.auth", "tenants_in_log")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant.

    Attributes:
        suspended_at: since when no token of its users is accepted; None if it is not suspended.
    """

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class BoundLogin:
    """A login of the PostgreSQL server that sees only one tenant."""

    login: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class User:
    """A user or an agent of a tenant.

    Attributes:
        kind: ``user`` or ``agent``.
        disabled_at: since when none of their tokens is accepted; None if they are not disabled.
    """

    id: str
    kind: str
    name: str
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A static key without its secret.

    Attributes:
        user: the bearer; None if it acts for the whole tenant.
        last_used_at: up to a minute late; None if it was never used.
        state: ``active``, or why it is rejected: ``revoked``, ``expired``, ``suspended`` (the tenant), ``disabled``
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
    """A new key and its token, which is stored nowhere."""

    key: Key
    token: SecretStr


class Directory:
    """The tenants, users and keys that may call.

    Each method is one statement on a connection of its own: this is for administration. Changes are recorded as
    administrative acts (:mod:`eventstore.administration`). All raise ``InvalidEvent`` for names that cannot be stored
    and ``NotFound`` for tenants, users and keys that do not exist.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def add_tenant(self, tenant: str, name: str = "") -> Tenant:
        """Add a tenant.

        Raises:
            ConflictError: it exists.
        """
        parameters = {"tenant": checked_tenant(tenant), "name": _checked_name(name)}
        taken = ConflictError(f"tenant {printable(tenant)} exists already: choose another id")
        return Tenant(*await self._fetch_one("add_tenant", parameters, taken))

    async def tenants(self, *, text: str = "", limit: int | None = None) -> list[Tenant]:
        """Return tenants by id.

        Args:
            text: only those whose id or name contains it.
            limit: at most so many.
        """
        return [Tenant(*row) for row in await self._fetch("tenants", {"text": text, "limit": limit})]

    async def suspend_tenant(self, tenant: str, *, suspended: bool = True) -> Tenant:
        """Reject all tokens of a tenant, or accept them again. Its data stays."""
        parameters = {"tenant": checked_tenant(tenant), "suspended": suspended}
        return Tenant(*await self._fetch_one("suspend_tenant", parameters))

    async def check_exists(self, tenant: str) -> None:
        """Check that a tenant was added, or has events: whatever appends to the log need not add its tenant.

        Raises:
            NotFound: neither; the error names the tenants that exist.
        """
        if await self._was_added(tenant):
            return
        if not (await self._store.log(Caller(tenant)).fetch(_HAS_EVENTS, {"tenant": tenant}))[0][0]:
            in_log = await self._store.log(ALL_TENANTS).fetch(_TENANTS_IN_LOG, {"limit": _NAMED_TENANTS + 1})
            raise await self._no_tenant(tenant, (str(name) for (name,) in in_log))

    async def add_user(self, tenant: str, user: str, name: str = "", *, agent: bool = False) -> User:
        """Add a user or an agent.

        Raises:
            ConflictError: they exist.
        """
        parameters = {
            "tenant": checked_tenant(tenant),
            "id": checked_user(user),
            "kind": "agent" if agent else "user",
            "name": _checked_name(name),
        }
        is_new, *row = await self._fetch_one("add_user", parameters)
        if not is_new:
            raise ConflictError(f"tenant {printable(tenant)} has a user {printable(user)} already: choose another id")
        return User(*row)

    async def users(
        self, tenant: str, *, user: str | None = None, text: str = "", limit: int | None = None
    ) -> list[User]:
        """Return the users of a tenant by id.

        Args:
            user: only this one.
            text: only those whose id or name contains it.
            limit: at most so many.
        """
        return [User(*row) for row in await self._fetch_of_tenant("users", tenant, user, text, limit)]

    async def disable_user(self, tenant: str, user: str, *, disabled: bool = True) -> User:
        """Reject all tokens of a user, or accept them again."""
        parameters = {"tenant": checked_tenant(tenant), "id": checked_user(user), "disabled": disabled}
        return User(*await self._fetch_one("disable_user", parameters, _no_user(tenant, user)))

    async def add_key(
        self,
        tenant: str,
        name: str,
        *,
        user: str | None = None,
        scopes: Iterable[TokenScope] = (TokenScope.READ, TokenScope.WRITE),
        lifetime: timedelta | None = None,
    ) -> NewKey:
        """Add a key.

        Args:
            name: what the key is for. Without a user it is also part of the actor of events: ``key:NAME``.
            user: the bearer; None if the key acts for the whole tenant.
            scopes: at least one.
            lifetime: how long it is valid; None if it does not expire.

        Raises:
            InputError: there is no scope, or the lifetime is not between zero and a hundred years.
        """
        allowed = sorted(set(scopes))
        if not allowed:
            raise InputError("scopes: a key needs at least one: give read, write, audit, erase or admin")
        if lifetime is not None and not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise InputError(f"lifetime: {lifetime} is not valid: give more than zero and at most a hundred years")
        key, token = StaticKey.generate()
        parameters = {
            "id": key.id,
            "tenant": checked_tenant(tenant),
            "user": None if user is None else checked_user(user),
            "name": _checked_key_name(name),
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

    async def keys(
        self, tenant: str, *, user: str | None = None, text: str = "", limit: int | None = None
    ) -> list[Key]:
        """Return the keys of a tenant, the oldest first; with a limit, those in use first, the latest first.

        Args:
            user: only theirs.
            text: only those whose name, user or id contains it.
            limit: at most so many.
        """
        return [Key(*row) for row in await self._fetch_of_tenant("keys", tenant, user, text, limit)]

    async def key_ids(self, tenant: str, beginning: str, limit: int) -> list[str]:
        """Return the ids of a tenant's keys that begin with a text, at most so many."""
        parameters = {"tenant": checked_tenant(tenant), "beginning": _checked_name(beginning), "limit": limit}
        return [row[0] for row in await self._fetch("key_ids", parameters)]

    async def revoke_key(self, tenant: str, key: str) -> Key:
        """Revoke a key permanently; that takes effect everywhere within a second.

        Args:
            key: its id.

        Raises:
            InputError: the key itself was given instead; the error does not repeat it.
        """
        if (key_id := id_in_key(key)) is not None:
            raise InputError(f"this is the key itself, with its secret: give its id alone, {key_id}")
        parameters = {"tenant": checked_tenant(tenant), "id": _checked_name(key)}
        reason = f"tenant {printable(tenant)} has no key {printable(key)}: eventstore keys list shows its keys"
        return Key(*await self._fetch_one("revoke_key", parameters, NotFound(reason)))

    async def bind_login(self, tenant: str, login: str) -> None:
        """Bind a login of the server to a tenant: it sees nothing else, whatever it sets.

        Raises:
            NotFound: there is no such login or tenant.
            ConflictError: it sees every tenant anyway, as a superuser does.
        """
        await self._check_tenant(tenant)
        await self._fetch("bind_login", {"tenant": checked_tenant(tenant), "login": _checked_name(login)}, role=_OWNER)

    async def unbind_login(self, login: str) -> None:
        """Remove the binding of a login.

        Raises:
            NotFound: there is none.
        """
        if not (await self._fetch("unbind_login", {"login": _checked_name(login)}, role=_OWNER))[0][0]:
            raise NotFound(
                f"the login {printable(login)} is bound to no tenant: eventstore tenants logins lists those that are"
            )

    async def logins(self) -> list[BoundLogin]:
        """Return the logins that are bound to a tenant, by name."""
        return [BoundLogin(*row) for row in await self._fetch("logins", {}, role=_OWNER)]

    async def _fetch_one(
        self, name: str, parameters: dict[str, Any], missing: EventStoreError | None = None
    ) -> tuple[Any, ...]:
        """Return the row of a statement. Without one, the tenant does not exist, or else ``missing`` is raised."""
        if rows := await self._fetch(name, parameters):
            return rows[0]
        await self._check_tenant(parameters["tenant"])
        raise missing or await self._no_tenant(parameters["tenant"])

    async def _fetch_of_tenant(
        self, name: str, tenant: str, user: str | None, text: str, limit: int | None
    ) -> list[tuple[Any, ...]]:
        parameters = {"tenant": checked_tenant(tenant), "user": user, "text": text, "limit": limit}
        if not (rows := await self._fetch(name, parameters)):
            await self._check_tenant(tenant)
        return rows

    async def _check_tenant(self, tenant: str) -> None:
        if not await self._was_added(tenant):
            raise await self._no_tenant(tenant)

    async def _was_added(self, tenant: str) -> bool:
        return bool((await self._fetch("has_tenant", {"tenant": checked_tenant(tenant)}))[0][0])

    async def _no_tenant(self, tenant: str, others: Iterable[str] = ()) -> NotFound:
        """Return the error for a tenant that does not exist, which names those that were added and ``others``."""
        names = sorted({row.id for row in await self.tenants()}.union(others) - {SYSTEM_TENANT})
        known = ", ".join(map(printable, names[:_NAMED_TENANTS])) or "none"
        return NotFound(
            f"tenant {printable(tenant)} does not exist: eventstore tenants add TENANT adds one; these exist: {known}"
            + (", and more" if len(names) > _NAMED_TENANTS else "")
        )

    async def _fetch(self, name: str, parameters: dict[str, Any], role: str = APP) -> list[tuple[Any, ...]]:
        async with self._store.connections.separate(role, parameters.get("tenant")) as connection:
            with translated():
                try:
                    async with connection.transaction():
                        await set_administrator(connection)
                        cursor = await connection.execute(query("agent_manager.auth", name), parameters)
                        return await cursor.fetchall()
                except (psycopg.errors.ForeignKeyViolation, psycopg.errors.UndefinedObject) as error:
                    raise NotFound(_message(error)) from None
                except psycopg.errors.InvalidGrantOperation as error:
                    raise ConflictError(_message(error)) from None


def _message(error: psycopg.Error) -> str:
    return printable(": ".join(filter(None, (error.diag.message_primary, error.diag.message_hint))), 500)


def _no_user(tenant: str, user: str) -> NotFound:
    return NotFound(f"tenant {printable(tenant)} has no user {printable(user)}: eventstore users add USER adds one")


def checked_user(user: str) -> str:
    """Return the id of a user.

    Raises:
        InvalidEvent: it is empty, too long, not storable, or could be mistaken for the actor of a key.
    """
    Caller("-", user)
    if user.startswith(KEY_ACTOR):
        raise InvalidEvent("user", f"{user!r} begins like the actor of a key: choose another id")
    return user


def _checked_name(name: str, longest: int = 255) -> str:
    check_text(name, "name", longest=longest)
    return name


def _checked_key_name(name: str) -> str:
    if not name:
        raise InvalidEvent("name", "is empty: say what the key is for")
    return _checked_name(name, longest=100)
