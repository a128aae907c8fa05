"""The console: web pages for operators, support staff and auditors, served at ``/console``.

Pages are rendered on the server (:mod:`~agent_manager.console.rendering`) and work without a script; htmx and a few
small modules in ``static/`` add search as one types, further rows as one scrolls, and live updates. Each page is one
function that returns its data, and is registered twice: as HTML, and with ``.json`` as the data
(:mod:`~agent_manager.console.pages`).

The routes are :class:`~agent_manager.server.authorization.AuthorizedRoute`, so scopes, limits and row-level security
are those of the API: a cookie with the token takes the place of the header (:mod:`~agent_manager.console.session`).
"""

from fastapi import APIRouter

from agent_manager.console import (
    conversations,
    log,
    operations,
    overview,
    people,
    projections,
    retention,
    sign_in,
    statistics,
)
from agent_manager.console.pages import ROOT, ConsoleRoute, not_found, redirect_to_root
from agent_manager.server.authorization import Data, needs

router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)
for _module in (sign_in, overview, conversations, log, projections, statistics, people, retention, operations):
    router.include_router(_module.router)
router.add_api_route(ROOT, redirect_to_root, openapi_extra=needs(Data.STATUS))
router.add_api_route(f"{ROOT}/{{path:path}}", not_found, openapi_extra=needs(Data.STATUS))

__all__ = ["router"]
