"""Operators: administrators of the server's own tenant, who see and do what concerns all tenants."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

from agent_manager.actions import recorded
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


def audited(context: RequestContext, action: str, **details: Any) -> AbstractAsyncContextManager[None]:
    """Record an action of the caller, then do it in the block; see :func:`agent_manager.actions.recorded`."""
    append = partial(context.append, claimed_actor=ACTOR)
    return recorded(append, context.caller.tenant, action, **details)
