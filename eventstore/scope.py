"""The scope of an operation: a tenant, a user within it, or all tenants. Row-level security enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from eventstore.errors import InvalidEvent
from eventstore.json_text import check_text

MAX_NAME_CHARACTERS = 255
"""Characters of a tenant's or a user's name."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant, and perhaps the user, on whose behalf an operation reads or writes.

    Attributes:
        tenant: restricts the operation to the data of this tenant.
        user: restricts it to the conversations that this user owns or that are shared with them; None means the whole
            tenant, for a service or an administrator.

    Raises:
        InvalidEvent: a name is empty, too long or cannot be stored.
    """

    tenant: str
    user: str | None = None

    def __post_init__(self) -> None:
        _checked(self.tenant, "tenant")
        if self.user is not None:
            _checked(self.user, "user")


class _AllTenants(Enum):
    ALL_TENANTS = "all tenants"


ALL_TENANTS: Final = _AllTenants.ALL_TENANTS
"""The scope of the operations that read the data of all tenants: projections, and administration of the server."""
DataScope: TypeAlias = Caller | Literal[_AllTenants.ALL_TENANTS]


def checked_tenant(tenant: str) -> str:
    """Return the name of a tenant.

    Raises:
        InvalidEvent: it is empty, too long or cannot be stored.
    """
    return _checked(tenant, "tenant")


def _checked(name: str, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidEvent(what, f"{name!r} is not a name: give a text of 1 to {MAX_NAME_CHARACTERS} characters")
    check_text(name, what, longest=MAX_NAME_CHARACTERS)
    return name
