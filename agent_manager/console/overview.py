from fastapi import APIRouter

from agent_manager.console.pages import ROOT, ConsoleRoute

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)
