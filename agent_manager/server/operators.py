"""Operators: administrators of the server's own tenant, who see and do what concerns all tenants."""

from __future__ import annotations

from agent_manager.auth import TokenScope
from agent_manager.server.context import RequestContext
from agent_manager.server.problems import Rejected

ACTOR = "console"
"""The actor of changes on a server that requires no tokens."""


def is_operator(context: RequestContext) -> bool:
    """Return whether the caller is an administrator of the server's own tenant."""
    return context.identity.may(TokenScope.ADMIN) and context.caller.tenant == context.store.tenant


def check_operator(context: RequestContext) -> None:
    """Check that the caller is an administrator of the server's own tenant.

    Raises:
        Rejected: They are one of another tenant.
    """
    if context.caller.tenant != context.store.tenant:
        detail = "this concerns all tenants: sign in with a key of the server's own tenant (EVENTSTORE_TENANT)"
        raise Rejected(detail, "scope", status=403)
