"""Who asks, and whether they may: decided before anything of a request but its head is read.

Every endpoint says in its description which scope it needs, or that it needs no token; the same words are the rule that
it is held by, so that the two cannot differ, and an endpoint without such words cannot be made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request

from agent_manager.http.models.common import Json
from agent_manager.http.refusals import BadToken, NoToken
from agent_manager.identity import Identity, Scope, Unauthorized
from eventstore.errors import EventStoreError

SCHEME = "token"
"""The name of the security scheme in the OpenAPI."""

_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
"""Headers of which one at least says that a request came through somebody else's hands."""

NOBODY: Json = {"security": []}
"""What an endpoint that needs no token says (``openapi_extra``)."""


def needs(scope: Scope) -> Json:
    """What an endpoint says that needs a token with this scope (``openapi_extra``)."""
    return {"security": [{SCHEME: [scope.value]}]}


def needed_by(extra: Json | None) -> Scope | None:
    """The scope that an endpoint says it needs; None for one that is open to all.

    Raises:
        TypeError: it does not say.
    """
    said = (extra or {}).get("security")
    if said == []:
        return None
    if not said:
        raise TypeError("an endpoint must say who may use it: openapi_extra=needs(Scope.…), or NOBODY")
    return Scope(said[0][SCHEME][0])


def everything_of(tenant: str) -> Identity:
    """Who asks without a token where none is needed: this machine's own, for the whole tenant.

    Nobody has said who that is, so events are caused by whom the request names.
    """
    return Identity(tenant, None, "", frozenset(Scope))


class Identifies(Protocol):
    """Whatever tells who bears a token."""

    def identify(self, token: str) -> Awaitable[Identity]:
        """See :meth:`agent_manager.identity.Gatekeeper.identify`."""


class Gate:
    """Tells who sends a request.

    Args:
        gatekeeper: tells who bears a token.
        tenant: of those without one.
        requires_tokens: whether there may be none without one.
    """

    def __init__(self, gatekeeper: Identifies, tenant: str, *, requires_tokens: bool) -> None:
        self._gatekeeper = gatekeeper
        self._tenant = tenant
        self.requires_tokens = requires_tokens

    async def identify(self, headers: Headers) -> Identity:
        """Who sends a request with these headers.

        Raises:
            NoToken, BadToken: nobody who may ask.
            ServerError: it cannot be said now.
        """
        said = headers.getlist("authorization")
        # What a proxy on this machine passes on comes from anywhere.
        if not said and not self.requires_tokens and not any(name in headers for name in _PROXIES):
            return everything_of(self._tenant)
        scheme, _, token = said[0].strip().partition(" ") if len(said) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            raise NoToken
        return await self.identify_again(token.strip())

    async def identify_again(self, token: str) -> Identity:
        """Who bears a token now.

        Raises:
            BadToken: nobody, or not any more.
        """
        identifying = self._gatekeeper.identify(token)
        del token  # so that it stands in no frame of an error
        try:
            return await identifying
        except Unauthorized as error:
            raise BadToken(str(error)) from None

    def still(self, headers: Headers, identity: Identity) -> Callable[[], Awaitable[bool]]:
        """Says, whenever it is called, whether what a request came with is worth now what it was then."""

        async def is_worth_it() -> bool:
            try:
                return await self.identify(headers) == identity
            except (NoToken, BadToken):
                return False
            except EventStoreError:
                return True  # nobody can say now, and nothing is told meanwhile

        return is_worth_it


def bearer(identity: Identity) -> str | None:
    """By what limits tell callers apart: the key, or the user of a JWT; None where nobody said who asks."""
    if identity.key is not None:
        return identity.key
    return f"{identity.tenant}\0{identity.user or ''}\0{identity.actor}" if identity.actor else None


def shares_of(identity: Identity) -> tuple[str, ...]:
    """Whose shares of the limits a request takes: the tenant's and the caller's; nobody's if no token is needed."""
    key = bearer(identity)
    return () if key is None else (identity.tenant, key)


async def identity_of(request: Request) -> Identity:
    """Whoever sends the request."""
    identity: Identity = request.state.identity
    return identity


Asking = Annotated[Identity, Depends(identity_of)]
"""An endpoint's parameter: who asks."""


def securities() -> dict[str, Any]:
    """The security schemes, for the OpenAPI."""
    return {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key (eventstore keys add) or a JWT. Not needed where the server listens on its own "
            "machine only and was not started with --require-tokens.",
        }
    }
