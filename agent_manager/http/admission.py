"""The route class of every endpoint: authenticates, checks the scope, and applies rate and concurrency limits.

It also makes a POST that changes something repeatable (:mod:`agent_manager.http.idempotency`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from agent_manager.http.asking import shares_of
from agent_manager.http.connections import SET_DISPLACEABLE, network_of
from agent_manager.http.data_kinds import Requirement
from agent_manager.http.idempotency import PARAMETER, Kept
from agent_manager.http.limits import Limits
from agent_manager.http.paths import decode_parameters
from agent_manager.http.problems import problem_of, problem_of_refusal
from agent_manager.http.refusals import NotAllowed, Refused
from agent_manager.identity import Scope as Access
from eventstore.errors import EventStoreError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class WalledRoute(APIRoute):
    """An endpoint.

    Raises:
        TypeError: it does not declare its kind of data, see :mod:`agent_manager.http.data_kinds`.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        extra = named.get("openapi_extra")
        self.requirement = Requirement(extra)
        self.needed = self.requirement.scope
        self.appends = self.needed in (Access.WRITE, Access.ADMIN)
        super().__init__(*given, **named)
        if self.takes_key:
            self.openapi_extra = {**(extra or {}), "parameters": [PARAMETER]}

    @property
    def takes_key(self) -> bool:
        """Whether the endpoint honours an idempotency key: it does if it is a POST that may change something."""
        return "POST" in (self.methods or ()) and self.appends

    def get_route_handler(self) -> Handler:
        """Return what answers: in the tenant's turn, and a repetition with an idempotency key as the first request."""
        handle = super().get_route_handler()
        if self.needed is None:
            return handle

        async def handle_in_turn(request: Request) -> Response:
            size = await _size_of(request)
            async with request.state.desk.turn_for(size, appends=self.appends):
                if not self.takes_key:
                    return await handle(request)
                backend = request.app.state.backend
                backend.limits.events.check(request.state.shares)  # one before it may have spent them
                once = backend.idempotency.once
                answer: Response | Kept = await once(request, request.state.identity, lambda: handle(request))
            return await self.repeated(request, answer) if isinstance(answer, Kept) else answer

        return handle_in_turn

    async def repeated(self, request: Request, kept: Kept) -> Response:
        """The answer to a repetition."""
        return kept.response()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or refuses."""
        decode_parameters(scope)
        if self.needed is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope)
        with ExitStack() as places:
            try:
                shares = await self._admit(request, places)
            except (Refused, EventStoreError) as error:
                if isinstance(error, Refused):
                    request.app.state.backend.counters.add("http_refused", reason=error.reason)
                await _wait_to_refuse(request)
                await self.refusal(request, error)(scope, receive, send)
                return
            request.state.desk = desk = await request.app.state.backend.desks.of(request.state.identity.tenant)
            limits = request.app.state.backend.limits

            async def counted() -> Message:
                message = await receive()
                limits.bytes.spend(shares, len(message.get("body", b"")))
                return message

            with desk.in_use():
                await super().handle(scope, counted, send)

    async def _admit(self, request: Request, places: ExitStack) -> Sequence[str]:
        """Let a request in; return whose shares of the limits it takes."""
        backend = request.app.state.backend
        limits: Limits = backend.limits
        with ExitStack() as identifying:
            if not backend.gate.knows(request.headers):  # else a crowd behind the same proxy would shut them out
                identifying.enter_context(limits.identifying.one(_network_of(request)))
            identity = await backend.gate.identify(request.headers)
        shares = request.state.shares = shares_of(identity)
        limits.rates.take(shares)
        limits.bytes.check(shares)
        if self.appends:
            limits.events.check(shares)  # before the body is read, which costs more than anything else
        places.enter_context(limits.requests.one(*shares))
        for needed in self.requirement.scopes(request.query_params):
            if not identity.may(needed):
                raise NotAllowed(needed)
        request.state.identity = identity
        request.state.places = places
        return shares

    def refusal(self, request: Request, error: Refused | EventStoreError) -> Response:
        """How it is said that nobody gets in."""
        return problem_of_refusal(error) if isinstance(error, Refused) else problem_of(error)


async def _wait_to_refuse(request: Request) -> None:
    """Wait until a refusal may be answered. Meanwhile another connection may take the place of this one."""
    shares: Sequence[str] = getattr(request.state, "shares", ())
    key = f"tenant {shares[0]}" if shares else f"address {_network_of(request)}"
    seconds = request.app.state.backend.limits.refusals.delay(key, asyncio.get_running_loop().time())
    if seconds > 0:
        request.scope.get(SET_DISPLACEABLE, lambda: None)()
        await asyncio.sleep(seconds)


def _network_of(request: Request) -> str:
    return network_of(request.client.host if request.client else "")


async def _size_of(request: Request) -> int:
    """Return the size of a body, which is kept for whoever reads it next."""
    try:
        return len(await request.body())
    except (ClientDisconnect, Refused) as error:  # of the guard, which makes the answer to its refusals itself
        raise HTTPException(400, f"the body is not complete: {error}") from None
