"""Tenants, users and keys as they are listed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr


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
