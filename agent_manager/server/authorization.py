"""Authentication and authorization of requests: the scope that each endpoint needs, and the route that checks it.

==================  =========  ======================================================================================
kind of data        scope      what belongs to it
==================  =========  ======================================================================================
``STATUS``          none       whether the server and PostgreSQL respond
``CONTENT``         ``read``   conversations, messages, tasks, files, members, agents, pending messages, searches and
                               statistics, as they are now
``PAST``            ``audit``  a conversation as it was at a version, position or time
``LOG``             ``audit``  events as the log holds them: positions, salts, digests, metadata; pages and streams
``CONVERSATION``    ``write``  changes to conversations: messages, events, names, members, deletions
``REGISTRY``        ``admin``  changes to the registered agents
``RETENTION``       ``admin``  retention rules and legal holds
``ERASURE``         ``erase``  erasures of events, conversations and users
``METRICS``         ``admin``  what the server and the database do for all tenants
==================  =========  ======================================================================================

A route declares its kind of data (``openapi_extra=needs(Data.CONTENT)``). Requests are checked against the declaration,
and the OpenAPI document shows it; a route without one cannot be created. If a query parameter selects data of another
kind, the route declares that, too: ``needs(Data.CONTENT, version=Data.PAST)``.

:class:`AuthorizedRoute` identifies the caller, applies the limits and checks the scope before it reads the body. It
also makes every POST that writes idempotent (:mod:`agent_manager.server.idempotency`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, nullcontext
from enum import Enum
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agent_manager.a2a import Json
from agent_manager.auth import Authenticator, Identity, TokenScope, Unauthorized
from agent_manager.server.idempotency import PARAMETER, StoredResponse
from agent_manager.server.json_request import BODY_METHODS, JsonRequest
from agent_manager.server.limits import MAX_CONTAINERS, Limits
from agent_manager.server.middleware import check_query, decode_parameters
from agent_manager.server.problems import BadToken, NotAllowed, NoToken, Rejected, TooMany
from agent_manager.server.protocol import SET_DISPLACEABLE, network_of
from agent_manager.server.response_cache import ResponseCache
from eventstore.administration import Administrator, act_as, record_reading
from eventstore.errors import EventStoreError

# The kinds of data that endpoints return or change, and the scopes that they need: the only place that decides it

SCHEME = "token"
"""The name of the security scheme in the OpenAPI document."""
_KIND, _MORE, _BY_PARAMETER = "x-data", "x-data-more", "x-data-by-parameter"


class Data(Enum):
    """A kind of data."""

    STATUS = "status"
    CONTENT = "content"
    PAST = "past"
    LOG = "log"
    CONVERSATION = "conversation"
    REGISTRY = "registry"
    RETENTION = "retention"
    ERASURE = "erasure"
    METRICS = "metrics"

    @property
    def scope(self) -> TokenScope | None:
        """The scope that it needs; None if it needs no token."""
        return _SCOPES[self]


_SCOPES = {
    Data.STATUS: None,
    Data.CONTENT: TokenScope.READ,
    Data.PAST: TokenScope.AUDIT,
    Data.LOG: TokenScope.AUDIT,
    Data.CONVERSATION: TokenScope.WRITE,
    Data.REGISTRY: TokenScope.ADMIN,
    Data.RETENTION: TokenScope.ADMIN,
    Data.ERASURE: TokenScope.ERASE,
    Data.METRICS: TokenScope.ADMIN,
}


def needs(kind: Data, *more: Data, **by_parameter: Data) -> Json:
    """Return the declaration of an endpoint (``openapi_extra``).

    Args:
        kind: The kind of data that the endpoint returns or changes.
        more: Further kinds that it returns.
        by_parameter: The kinds that query parameters select, by the names of the parameters.
    """
    scopes = [each.scope.value for each in (kind, *more) if each.scope is not None]
    declaration: Json = {"security": [{SCHEME: scopes}] if scopes else [], _KIND: kind.value}
    if more:
        declaration[_MORE] = [each.value for each in more]
    if by_parameter:
        declaration[_BY_PARAMETER] = {name: each.value for name, each in by_parameter.items()}
    return declaration


def security_schemes() -> dict[str, Any]:
    """Return the security schemes for the OpenAPI document."""
    return {
        SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key (eventstore keys add NAME) or a JWT. Not needed if the server listens only on its "
            "own machine and was not started with --require-tokens.",
        }
    }


# The identity of the caller

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
"""Headers, and prefixes of headers, that reverse proxies, load balancers and CDNs add to forwarded requests."""


def is_proxied(headers: Headers) -> bool:
    """Return whether a header shows that a proxy forwarded the request, so that its origin is unknown."""
    names = (name.replace("_", "-") for name in headers)
    return any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIXES) for name in names)


class RequestAuthenticator:
    """Identifies the callers of requests.

    Args:
        authenticator: Identifies the bearers of tokens.
        tenant: The tenant of requests without a token.
        requires_tokens: Whether every request needs a token.
    """

    def __init__(self, authenticator: Authenticator, tenant: str, *, requires_tokens: bool) -> None:
        self._authenticator = authenticator
        self._tenant = tenant
        self.requires_tokens = requires_tokens

    async def identify(self, headers: Headers) -> Identity:
        """Return the identity of the caller.

        Raises:
            NoToken, BadToken: The request lacks a valid token.
            ServerError: The token cannot be checked now.
        """
        if self._needs_none(headers):
            # All rights, but no actor: events are caused by the actor that the request names.
            return Identity(self._tenant, None, "", frozenset(TokenScope))
        token = _bearer_token(headers)
        if not token:
            raise NoToken
        identifying = self._authenticator.identify(token)
        del token  # tracebacks may show local variables
        try:
            return await identifying
        except Unauthorized as error:
            raise BadToken(str(error)) from None

    def is_trusted(self, headers: Headers) -> bool:
        """Return whether a request needs no token, or has one that was valid before."""
        return self._needs_none(headers) or self._authenticator.has_admitted(_bearer_token(headers))

    def is_own(self, headers: Headers) -> bool:
        """Return whether a request comes from this machine itself and needs no token."""
        return not self.requires_tokens and not is_proxied(headers)

    def identity_check(self, headers: Headers, identity: Identity) -> Callable[[], Awaitable[bool]]:
        """Return a function that checks whether the token of a request still has the same identity and scopes."""

        async def is_unchanged() -> bool:
            try:
                return await self.identify(headers) == identity
            except (NoToken, BadToken):
                return False
            except EventStoreError:
                return True  # while the database is unavailable there are no events to receive, either

        return is_unchanged

    def _needs_none(self, headers: Headers) -> bool:
        return "authorization" not in headers and self.is_own(headers)


def _bearer_token(headers: Headers) -> str:
    """Return the bearer token of a request; empty if there is not exactly one."""
    values = headers.getlist("authorization")
    scheme, _, token = values[0].strip().partition(" ") if len(values) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def limit_keys_of(identity: Identity) -> tuple[str, ...]:
    """Return the tenant and the caller whose limits a request counts against; empty if it needs no token.

    A caller is a key, or a user of a JWT.
    """
    if identity.key is not None:
        return identity.tenant, identity.key
    if not identity.actor:
        return ()
    return identity.tenant, f"{identity.tenant}\0{identity.user or ''}\0{identity.actor}"


# The route class of all endpoints

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
OPEN_BYTES = 16 * 1024
"""The most bytes of the body of a request that needs no token, such as the form of a sign-in."""


class AuthorizedRoute(APIRoute):
    """A route that identifies the caller, applies the limits and checks the scope before it reads the body.

    FastAPI documents overriding ``get_route_handler``, which is used for turns and idempotency. Admission overrides
    Starlette's ``handle`` instead, because only there are the ASGI messages at hand: the caller is admitted before the
    first of them is read, and the bytes of the body are counted as they arrive.

    Attributes:
        request_class: Reads the body of a request.
        via: The program that the administrative acts of requests name.
        needed: The scope that every request needs; None if the endpoint needs no token.
        also_needed: Further scopes that every request needs.
        takes_key: Whether it honours an idempotency key: it does if it is a POST that may write.

    Raises:
        TypeError: The endpoint does not declare its kind of data.
    """

    request_class = JsonRequest
    via = "http"

    def __init__(self, *arguments: Any, openapi_extra: Json | None = None, **options: Any) -> None:
        declared = openapi_extra or {}
        if _KIND not in declared:
            raise TypeError("an endpoint must declare its kind of data: openapi_extra=needs(Data.…)")
        self.needed = Data(declared[_KIND]).scope
        self.also_needed = [Data(each).scope for each in declared.get(_MORE, ())]
        self._needed_by = {name: Data(kind).scope for name, kind in declared.get(_BY_PARAMETER, {}).items()}
        kind, methods = Data(declared[_KIND]), options.get("methods") or ()
        self._appends = kind in (Data.CONVERSATION, Data.REGISTRY, Data.RETENTION)
        self._is_act = kind in (Data.REGISTRY, Data.RETENTION, Data.ERASURE, Data.METRICS) and "GET" not in methods
        self.takes_key = self._appends and "POST" in methods
        parameters = {"parameters": [PARAMETER]} if self.takes_key else {}
        super().__init__(*arguments, openapi_extra=declared | parameters, **options)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request if it is admitted.

        Raises:
            Rejected: It is not.
        """
        decode_parameters(scope)
        check_query(scope)
        if self.needed is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, _with_small_body(receive), send)
            return
        request = Request(scope)
        server_context = request.app.state.server_context
        limits: Limits = server_context.limits
        with ExitStack() as request_limit:
            try:
                identity = await self._admit(request, request_limit)
            except (Rejected, EventStoreError):
                await _delay_rejection(request)
                raise
            request.state.request_limit = request_limit
            request.state.tenant_context = tenant_context = await server_context.tenant_contexts.of(identity.tenant)
            with tenant_context.in_use(), limits.bodies.holding(identity.tenant) as hold_bytes:

                async def receive_counted() -> Message:
                    message = await receive()
                    size = len(message.get("body", b""))
                    hold_bytes(size)
                    limits.bytes.spend(request.state.limit_keys, size)
                    return message

                await super().handle(scope, receive_counted, send)

    async def _admit(self, request: Request, request_limit: ExitStack) -> Identity:
        server_context = request.app.state.server_context
        limits: Limits = server_context.limits
        is_known = server_context.authenticator.is_trusted(request.headers)  # others may share the proxy
        with nullcontext() if is_known else limits.identifying.one(_network_of(request)):
            identity: Identity = await server_context.authenticator.identify(request.headers)
        request.state.identity = identity
        request.state.limit_keys = limit_keys = limit_keys_of(identity)
        act_as(Administrator(identity.actor, self.via))
        limits.rates.take(limit_keys)
        limits.bytes.check(limit_keys)
        if self._appends or self._is_act:
            limits.events.check(limit_keys)  # before the body is read, which costs most
        request_limit.enter_context(limits.requests.one(*limit_keys))
        by_parameters = (self._needed_by.get(name) for name in request.query_params)
        all_needed = (self.needed, *self.also_needed, *by_parameters)
        for needed in all_needed:
            if needed is not None and not identity.may(needed):
                raise NotAllowed(needed)
        if TokenScope.AUDIT in all_needed and server_context.settings.audit_reads:
            limits.events.take(limit_keys)
            query = {"query": request.url.query or None}
            service = server_context.store.connections.service
            await record_reading(service, identity.tenant, request.url.path, query)
        return identity

    def get_route_handler(self) -> Handler:
        """Return a handler that waits for the request's turn, and runs a request with an idempotency key once."""
        handle_body = super().get_route_handler()
        if self.needed is None:
            return handle_body

        async def handle(request: Request) -> Response:
            try:
                return await handle_body(request)
            except (RequestValidationError, HTTPException) as error:
                # FastAPI's frames refer to these errors, and the errors' causes to the frames, which hold the body.
                error.__context__ = None
                raise error.with_traceback(None) from None

        async def handle_in_turn(request: Request) -> Response:
            request = self.request_class(request.scope, request.receive)
            size = await _size_of(request)
            server_context = request.app.state.server_context
            is_large = server_context.is_large_page(self.rows(request))
            tenant_context = request.state.tenant_context
            async with tenant_context.turn_for(size, reads_large_page=is_large, appends=self._appends):
                # The limit on events may have been used up while the request waited for its turn.
                if self._is_act:
                    server_context.limits.events.take(request.state.limit_keys)  # an administrative act is an event
                elif self.takes_key:
                    server_context.limits.events.check(request.state.limit_keys)
                if request.method in BODY_METHODS:
                    await request.json()  # FastAPI, which takes the value from there, would replace its errors
                if not self.takes_key:
                    response = await handle(request)
                    if request.method != "GET":
                        return response  # what it has written cannot be refused any more
                    responses: ResponseCache = server_context.response_cache
                    return await responses.stored(response, request.state.identity.tenant)
                outcome = await server_context.idempotency.once(
                    request, request.state.identity, lambda: handle(request)
                )
            return await self.repeated(request, outcome) if isinstance(outcome, StoredResponse) else outcome

        return handle_in_turn

    def rows(self, request: Request) -> float:
        """Return the number of rows that a request asks for, in any form that is valid; 0 if it names none."""
        try:
            return float(request.query_params.get("limit", 0))
        except ValueError:
            return 0

    async def repeated(self, request: Request, stored: StoredResponse) -> Response:
        """Return the response to a repetition of a request with an idempotency key."""
        return stored.response()


def _with_small_body(receive: Receive) -> Receive:
    """Return a function that receives a request of which no token is needed: its body is short."""
    size = 0

    async def receive_small() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > OPEN_BYTES:
            detail = f"without a token, the body of a request may have {OPEN_BYTES:,} bytes: send less"
            raise Rejected(detail, "large_body", status=413)
        return message

    return receive_small


async def _delay_rejection(request: Request) -> None:
    """Wait until a rejection may be sent. Meanwhile another connection may displace this one."""
    limit_keys: Sequence[str] = getattr(request.state, "limit_keys", ())
    key = f"tenant {limit_keys[0]}" if limit_keys else f"address {_network_of(request)}"
    seconds = request.app.state.server_context.limits.rejections.delay(key, asyncio.get_running_loop().time())
    if seconds > 0:
        request.scope.get(SET_DISPLACEABLE, lambda: None)()
        await asyncio.sleep(seconds)


async def check_open_rate(request: Request) -> None:
    """Check that the network of a request that has shown no token does not send too many that take none.

    Raises:
        TooMany: It does.
    """
    server_context = request.app.state.server_context
    if server_context.authenticator.is_trusted(request.headers):  # others may share the proxy
        return
    try:
        server_context.limits.open_rates.take([_network_of(request)])
    except TooMany:
        await _delay_rejection(request)
        raise


def _network_of(request: Request) -> str:
    return network_of(request.client.host if request.client else "")


async def _size_of(request: Request) -> int:
    """Return the size of the body. Starlette keeps the body for the endpoint.

    Raises:
        Rejected: The body would take many times its size in parsed form.
    """
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the body is not complete") from None
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS:
        detail = f"the body has more than {MAX_CONTAINERS:,} objects and arrays: send less at a time"
        raise Rejected(detail, "many_values", status=413)
    return len(body)
