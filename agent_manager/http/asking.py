"""Who asks, and whether they may: decided before anything of a request but its head is read.

Which scope an endpoint needs follows from its kind of data, see :mod:`agent_manager.http.data_kinds`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request

from agent_manager.http.data_kinds import SCHEME
from agent_manager.http.refusals import BadToken, NoToken
from agent_manager.identity import Identity, Scope, Unauthorized
from eventstore.errors import EventStoreError

_PROXY_HEADERS = frozenset(
    (
        "forwarded", "via", "cdn-loop", "surrogate-capability", "proxy-connection", "max-forwards", "client-ip",
        "true-client-ip", "remote-addr", "remote-user", "x-client-ip", "x-client-cert", "x-client-port",
        "x-client-proto", "x-cluster-client-ip", "x-originating-ip", "x-proxyuser-ip", "x-host", "x-scheme",
        "x-url-scheme", "x-rewrite-url", "front-end-https", "x-varnish", "x-bluecoat-via", "x-amzn-trace-id",
        "x-cloud-trace-context", "wl-proxy-client-ip", "proxy-client-ip",
    )
)  # fmt: skip
_PROXY_PREFIXES = (
    "x-forwarded", "x-original-", "x-real-", "x-remote-", "x-proxy-", "x-nginx-", "x-envoy-", "x-arr-", "x-azure-",
    "x-appengine-", "x-goog-", "x-amz-cf-", "x-vercel-", "x-nf-", "x-akamai-", "x-sucuri-", "x-ms-forwarded-",
    "x-auth-request-", "x-ssl-", "x-tls-", "ssl-client-", "cf-", "cloudfront-", "fastly-", "fly-", "akamai-",
    "ali-cdn-", "incap-", "tailscale-",
)  # fmt: skip
"""Headers, and beginnings of headers, that reverse proxies, load balancers and CDNs add to what they pass on."""


def everything_of(tenant: str) -> Identity:
    """Who asks without a token where none is needed: this machine's own, for the whole tenant.

    Nobody has said who that is, so events are caused by whom the request names.
    """
    return Identity(tenant, None, "", frozenset(Scope))


def came_through_proxy(headers: Headers) -> bool:
    """Return whether a header shows that somebody else passed the request on, and so where it came from is unknown."""
    names = (name.replace("_", "-") for name in headers)
    return any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES) for name in names)


class Identifies(Protocol):
    """Whatever tells who bears a token."""

    def identify(self, token: str) -> Awaitable[Identity]:
        """See :meth:`agent_manager.identity.Gatekeeper.identify`."""

    def has_admitted(self, token: str) -> bool:
        """See :meth:`agent_manager.identity.Gatekeeper.has_admitted`."""


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

    def is_own(self, headers: Headers) -> bool:
        """Return whether a request with these headers comes from this machine itself, and needs no token."""
        return not self.requires_tokens and not came_through_proxy(headers)

    async def identify(self, headers: Headers) -> Identity:
        """Who sends a request with these headers.

        Raises:
            NoToken, BadToken: nobody who may ask.
            ServerError: it cannot be said now.
        """
        if self._needs_none(headers):
            return everything_of(self._tenant)
        token = _bearer_token(headers)
        if not token:
            raise NoToken
        return await self.identify_again(token)

    def knows(self, headers: Headers) -> bool:
        """Return whether a request with these headers needs no token, or shows one that was valid before."""
        return self._needs_none(headers) or self._gatekeeper.has_admitted(_bearer_token(headers))

    def _needs_none(self, headers: Headers) -> bool:
        return "authorization" not in headers and self.is_own(headers)

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


def _bearer_token(headers: Headers) -> str:
    """Return the bearer token of a request; empty if there is not exactly one."""
    values = headers.getlist("authorization")
    scheme, _, token = values[0].strip().partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def bearer(identity: Identity) -> str | None:
    """By what limits tell callers apart: the key, or the user of a JWT; None where nobody said who asks."""
    if identity.key is not None:
        return identity.key
    return f"{identity.tenant}\0{identity.user or ''}\0{identity.actor}" if identity.actor else None


def shares_of(identity: Identity) -> tuple[str, ...]:
    """Return the tenant and the caller that a request counts against; empty if it needs no token."""
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
