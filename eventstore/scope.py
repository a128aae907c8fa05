"""The scope of an operation: a tenant, a user within it, or all tenants. Row-level security enforces it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from eventstore.errors import InvalidEvent
from eventstore.json_text import check_text

LONGEST_NAME = 255
"""Characters of a tenant's or a user's name."""


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf something is read or written.

    Attributes:
        tenant: nothing of another one is seen.
        user: sees and writes their own conversations and those shared with them; None is the whole tenant: a service or
            an administrator.

    Raises:
        InvalidEvent: a name is empty, too long or not storable.
    """

    tenant: str
    user: str | None = None

    def __post_init__(self) -> None:
        checked_tenant(self.tenant)
        if self.user is not None:
            _checked(self.user, "user")


class _AllTenants(Enum):
    EVERYBODY = "everybody"


ALL_TENANTS: Final = _AllTenants.EVERYBODY
"""In the place of a caller, for the few who must see all tenants: the projector, and who looks after the server."""
Scope: TypeAlias = Caller | Literal[_AllTenants.EVERYBODY]


def checked_tenant(tenant: str) -> str:
    """The tenant's name.

    Raises:
        InvalidEvent: it is empty, too long or not storable.
    """
    return _checked(tenant, "tenant")


def _checked(name: str, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidEvent(what, f"{name!r} is no name: give a text of 1 to {LONGEST_NAME} characters")
    check_text(name, what, longest=LONGEST_NAME)
    return name
