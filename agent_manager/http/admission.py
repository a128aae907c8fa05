"""The route that every endpoint is made of: it lets in whoever may, as often and as many at a time as they may."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent_manager.http.asking import bearer, needed_by
from agent_manager.http.problems import problem_of, problem_of_refusal
from agent_manager.http.refusals import NotAllowed, Refused
from eventstore.errors import EventStoreError


class WalledRoute(APIRoute):
    """An endpoint.

    Raises:
        TypeError: it does not say who may use it.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.needed = needed_by(self.openapi_extra)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or refuses."""
        if self.needed is None or scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        request = Request(scope)
        with ExitStack() as places:
            try:
                await self._admit(request, places)
            except (Refused, EventStoreError) as error:
                if isinstance(error, Refused):
                    request.app.state.backend.counters.add("http_refused", reason=error.reason)
                await self.refusal(request, error)(scope, receive, send)
                return
            request.state.desk = desk = await request.app.state.backend.desks.of(request.state.identity.tenant)
            with desk.in_use():
                await super().handle(scope, receive, send)

    async def _admit(self, request: Request, places: ExitStack) -> None:
        backend = request.app.state.backend
        places.enter_context(backend.limits.requests.one(None))
        identity = await backend.gate.identify(request.headers)
        key = bearer(identity)
        if key is not None:
            backend.limits.rates.take(key)
            places.enter_context(backend.limits.requests_of_keys.one(key))
        assert self.needed is not None
        if not identity.may(self.needed):
            raise NotAllowed(self.needed)
        request.state.identity = identity
        request.state.places = places

    def refusal(self, request: Request, error: Refused | EventStoreError) -> Response:
        """How it is said that nobody gets in."""
        return problem_of_refusal(error) if isinstance(error, Refused) else problem_of(error)
