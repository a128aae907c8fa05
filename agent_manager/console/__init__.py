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
    conversation,
    conversations,
    history,
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

SUBJECTS = (
    sign_in, overview, conversations, conversation, history, log, projections, statistics, people, retention,
    operations,
)  # fmt: skip
router = APIRouter(include_in_schema=False, route_class=ConsoleRoute)
for _subject in SUBJECTS:
    router.include_router(_subject.router)
router.add_api_route(ROOT, redirect_to_root, openapi_extra=needs(Data.STATUS))
router.add_api_route(f"{ROOT}/{{path:path}}", not_found, openapi_extra=needs(Data.STATUS))

__all__ = ["SUBJECTS", "router"]
