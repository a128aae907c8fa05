"""The identity and scopes of a caller, and the errors of authentication."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from eventstore.errors import EventStoreError, ServerError
from eventstore.scope import Caller


class Unauthorized(EventStoreError):
    """The token is not valid. The text is the same for every reason, so that it tells an attacker nothing."""

    def __init__(self) -> None:
        super().__init__("the token is not valid: ask its issuer for another one")


class KeysUnavailable(ServerError):
    """The keys that verify JWT cannot be read now, so that no JWT can be distinguished from a forged one."""


class TokenScope(StrEnum):
    """A permission of a token. None includes another."""

    READ = "read"
    WRITE = "write"
    AUDIT = "audit"
    """Read the log itself: history, the stream of events, as-of."""
    ERASE = "erase"
    """Erase what events hold."""
    ADMIN = "admin"
    """See and change all conversations of the tenant, regardless of their owner."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller.

    Attributes:
        tenant: the caller's tenant; data of other tenants is invisible.
        user: the user or agent; None for a key without a user, which acts for the whole tenant.
        actor: the actor of the events that the caller causes: the user, or ``key:`` and the key's name.
        scopes: the permissions of the token.
        key: the id of the static key; None if the token is a JWT, or if there is no token.
        caller: the scope of reads and writes: the user, or the whole tenant for an administrator.
    """

    tenant: str
    user: str | None
    actor: str
    scopes: frozenset[TokenScope]
    key: str | None = None
    caller: Caller = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        caller = Caller(self.tenant, None if TokenScope.ADMIN in self.scopes else self.user)
        object.__setattr__(self, "caller", caller)

    def may(self, scope: TokenScope) -> bool:
        """Return whether the token has a scope."""
        return scope in self.scopes
