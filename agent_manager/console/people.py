"""People: the users and keys of a tenant; for operators, the tenants, too. Each change is an administrative act."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from agent_manager.auth import Directory, TokenScope
from agent_manager.auth.directory import Key, User
from agent_manager.console.kept import kept
from agent_manager.console.pages import ROOT, ConsoleRoute, form, models, page, redirect
from agent_manager.console.rendering import respond_with_page
from agent_manager.server.authorization import Data, needs
from agent_manager.server.context import CurrentContext, RequestContext
from agent_manager.server.operators import check_operator, is_operator
from agent_manager.server.problems import Rejected
from agent_manager.server.schemas.common import Cursor, In
from agent_manager.server.schemas.conversations import ConversationOut
from eventstore import Caller
from eventstore.errors import NotFound
from projections import Reader

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

PEOPLE_ROWS = 30
"""Users, keys and tenants that the page shows of each."""
ROWS = 50
"""Conversations of a user at a time; further ones follow as one scrolls."""
_CHANGE = needs(Data.REGISTRY)


class PeopleQuery(In):
    """A selection of users, keys and tenants: those whose names or ids contain a text."""

    q: str = Field("", max_length=255)


@page(router, "/people", "people.html", Data.METRICS)
async def show_people(context: CurrentContext, query: Annotated[PeopleQuery, Query()]) -> dict[str, Any]:
    """Show the users and keys of the caller's tenant."""
    return await _people(context, query.q)


async def _people(context: RequestContext, text: str = "") -> dict[str, Any]:
    options: dict[str, Any] = {"text": text, "limit": PEOPLE_ROWS + 1}
    users, keys = await _users_and_keys(context, **options)
    tenants = await Directory(context.store).tenants(**options) if is_operator(context) else []
    found: dict[str, list[Any]] = {"users": users, "keys": keys, "tenants": tenants}
    return {
        **{name: rows[:PEOPLE_ROWS] for name, rows in found.items()},
        "more": {name: len(rows) > PEOPLE_ROWS for name, rows in found.items()},
        "q": text,
        "grantable": sorted(scope.value for scope in context.identity.scopes),
        "made": None,
    }


async def _users_and_keys(context: RequestContext, **options: Any) -> tuple[list[User], list[Key]]:
    """Return users of the caller's tenant by id, and keys: those in use first, the latest first."""
    directory, tenant = Directory(context.store), context.caller.tenant
    try:
        users, keys = await asyncio.gather(directory.users(tenant, **options), directory.keys(tenant, **options))
    except NotFound:  # a tenant that was not added: it has neither
        return [], []
    return users, keys


class UserQuery(In):
    """A user, by an id of any characters, and the page of their conversations."""

    id: str
    after: Cursor = None


@page(router, "/people/user", "user.html", Data.METRICS)
async def show_user(context: CurrentContext, query: Annotated[UserQuery, Query()]) -> dict[str, Any]:
    """Show a user, their keys and, with the scope ``read``, the conversations that they may see."""
    user = query.id
    users, keys = await _users_and_keys(context, user=user, limit=PEOPLE_ROWS)
    found: dict[str, Any] | None = {"items": [], "next": None}
    if context.identity.may(TokenScope.READ):
        found = await kept(context, "conversations of user", query, partial(_conversations_of, context, query))
    return {
        "user": user,
        "known": users[0] if users else None,
        "keys": keys,
        **(found or {"items": None, "next": None}),
    }


async def _conversations_of(context: RequestContext, query: UserQuery) -> dict[str, Any]:
    reader = Reader(context.store, caller=Caller(context.caller.tenant, query.id))
    found = await reader.conversations(limit=ROWS, after=query.after)
    return {"items": await models(context, ConversationOut, found), "next": found.next}


class UserIn(In):
    """A user or agent to add."""

    user: str
    name: str = ""
    kind: Literal["user", "agent"] = "user"


@router.post("/people/users", openapi_extra=_CHANGE)
async def add_user(context: CurrentContext, fields: Annotated[UserIn, form(UserIn)]) -> Response:
    """Add a user or an agent."""
    await Directory(context.store).add_user(
        context.caller.tenant, fields.user, fields.name, agent=fields.kind == "agent"
    )
    return redirect(context, "people")


class DisableIn(In):
    """True to reject all tokens of a user."""

    user: str
    disabled: bool


@router.post("/people/users/state", openapi_extra=_CHANGE)
async def disable_user(context: CurrentContext, fields: Annotated[DisableIn, form(DisableIn)]) -> Response:
    """Reject all tokens of a user, or accept them again."""
    await Directory(context.store).disable_user(context.caller.tenant, fields.user, disabled=fields.disabled)
    return redirect(context, "people")


class KeyIn(In):
    """A key to make."""

    name: str
    user: str = ""
    scopes: list[TokenScope] = Field(default=[TokenScope.READ, TokenScope.WRITE], min_length=1)
    days: int = Field(90, ge=0, le=36_500)


@router.post("/people/keys", openapi_extra=_CHANGE)
async def add_key(context: CurrentContext, request: Request, fields: Annotated[KeyIn, form(KeyIn)]) -> Response:
    """Make a key, and show it once. It has no scope that its maker lacks."""
    if lacking := sorted(set(fields.scopes) - context.identity.scopes):
        raise Rejected(f"a key may have only scopes of yours: leave out {', '.join(lacking)}", "scope", status=403)
    made = await Directory(context.store).add_key(
        context.caller.tenant,
        fields.name,
        user=fields.user or None,
        scopes=fields.scopes,
        lifetime=timedelta(days=fields.days) if fields.days else None,
    )
    data = await _people(context) | {"made": {"key": made.key, "token": made.token.get_secret_value()}}
    return respond_with_page(request, "people.html", data, status=201)


class RevokeIn(In):
    """A key to revoke."""

    key: str


@router.post("/people/keys/revoke", openapi_extra=_CHANGE)
async def revoke_key(context: CurrentContext, fields: Annotated[RevokeIn, form(RevokeIn)]) -> Response:
    """Revoke a key permanently."""
    await Directory(context.store).revoke_key(context.caller.tenant, fields.key)
    return redirect(context, "people")


class TenantIn(In):
    """A tenant to add."""

    tenant: str
    name: str = ""


@router.post("/people/tenants", openapi_extra=_CHANGE)
async def add_tenant(context: CurrentContext, fields: Annotated[TenantIn, form(TenantIn)]) -> Response:
    """Add a tenant."""
    check_operator(context)
    await Directory(context.store).add_tenant(fields.tenant, fields.name)
    return redirect(context, "people")


class SuspendIn(In):
    """True to reject all tokens of a tenant."""

    tenant: str
    suspended: bool


@router.post("/people/tenants/state", openapi_extra=_CHANGE)
async def suspend_tenant(context: CurrentContext, fields: Annotated[SuspendIn, form(SuspendIn)]) -> Response:
    """Reject all tokens of a tenant, or accept them again."""
    check_operator(context)
    await Directory(context.store).suspend_tenant(fields.tenant, suspended=fields.suspended)
    return redirect(context, "people")
