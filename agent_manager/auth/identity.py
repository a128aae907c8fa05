"""The identity and scope of a caller, and the errors of authentication."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from eventstore.errors import EventStoreError, ServerError
from eventstore.scope import Caller

# What can go wrong with a caller's identity


class Unauthorized(EventStoreError):
    """The token is not valid. It is one text whatever the reason, so that it teaches nothing to who tries tokens."""

    def __init__(self) -> None:
        super().__init__("the token is not valid: ask whoever gave it to you for another one")


class KeysUnavailable(ServerError):
    """The keys with which JWT are checked cannot be read now, so that no JWT can be told from a forged one."""


# Who a caller is and what they may do: the outcome of looking at a token


class Scope(StrEnum):
    """What a token lets its bearer do. Each stands for itself: none includes another."""

    READ = "read"
    WRITE = "write"
    AUDIT = "audit"
    """Read the log itself: history, the stream of events, as-of."""
    ERASE = "erase"
    ADMIN = "admin"
    """See and change all conversations of the tenant, whoever owns them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls.

    Attributes:
        tenant: the caller's; nothing of another one is seen.
        user: the user or agent; None for a key that belongs to no user, which acts for the whole tenant.
        actor: what events say about who caused them: the user, or ``key:`` and the key's name.
        scopes: what the token allows.
        key: the id of the static key; None where a JWT was shown, or no token at all.
        caller: on whose behalf to read and write: the user, or the whole tenant for an administrator.
    """

    tenant: str
    user: str | None
    actor: str
    scopes: frozenset[Scope]
    key: str | None = None
    caller: Caller = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        caller = Caller(self.tenant, None if Scope.ADMIN in self.scopes else self.user)
        object.__setattr__(self, "caller", caller)

    def may(self, scope: Scope) -> bool:
        """Whether the token allows it."""
        return scope in self.scopes
