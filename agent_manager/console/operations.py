"""Operations: backups and drills, the findings of doctor, the server, its settings, migrations, administrative acts."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter
from pydantic import SecretStr

from agent_manager.audit.status import read_sealed_log
from agent_manager.auth import TokenScope
from agent_manager.console.kept import kept
from agent_manager.console.operator import read_backups
from agent_manager.console.pages import ROOT, ConsoleRoute, page
from agent_manager.console.retention import read_retention
from agent_manager.doctor import Report, examine
from agent_manager.doctor.database import Limits
from agent_manager.server.authorization import Data
from agent_manager.server.context import CurrentContext, RequestContext, ServerContext
from agent_manager.server.operators import check_operator
from agent_manager.settings import ServerSettings
from eventstore import __version__
from eventstore.concurrency import in_daemon_thread, independent_task
from eventstore.database.queries import query
from eventstore.urls import show_url
from projections.status import read_standby

router = APIRouter(prefix=ROOT, route_class=ConsoleRoute)

_ACTS = query("agent_manager.console", "acts")
_EXAMINATIONS: WeakKeyDictionary[ServerContext, asyncio.Task[Report]] = WeakKeyDictionary()
"""The latest examination of each server."""


@page(router, "/operations", "operations.html", Data.METRICS)
async def show_operations(context: CurrentContext) -> dict[str, Any]:
    """Show backups, the server, the sealed log, retention, settings, migrations and, with the scope ``audit``, acts."""
    check_operator(context)
    store = context.store
    projector = store.connections.projector
    samples, standby, sealed, versions = await asyncio.gather(
        context.server_context.lag_history.samples(),
        read_standby(store),
        read_sealed_log(store),
        projector.fetch("SELECT current_setting('server_version')"),
    )
    # As in the trail, they are events of the log.
    acts = await projector.fetch(_ACTS) if context.identity.may(TokenScope.AUDIT) else []
    backups, migrations, retention = await asyncio.gather(
        kept(context, "backups", None, partial(read_backups, context)),
        kept(context, "migrations", None, partial(_migrations, context)),
        read_retention(context),
    )
    return {
        "is_backed_up": bool(context.server_context.settings.backup_dir),
        "backups": backups,
        "server": {
            "version": __version__,
            "database": store.server.public_url,
            "server_version": versions[0][0],
            "schema": store.settings.db_schema,
            "last_position": samples[-1].last_position,
            "horizon_distance": samples[-1].horizon_distance,
            "standby": standby,
        },
        "sealed": sealed,
        "acts": [dict(zip(("time", "tenant", "actor", "act", "details"), row, strict=True)) for row in acts],
        "migrations": migrations,
        **retention,
        "settings": visible_settings(context.server_context.settings),
    }


async def _migrations(context: RequestContext) -> list[Any]:
    return await asyncio.to_thread(context.store.server.migrator().status)


def visible_settings(settings: ServerSettings) -> list[dict[str, Any]]:
    """Return the settings by their variables; of a secret, only whether it is set."""
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        variable = settings.variable_of(name)
        if isinstance(value, SecretStr) or (name == "audit_command" and value):  # a command may have a token in it
            text = "set, not shown"
        elif isinstance(value, Path | str):
            text = show_url(str(value)) if "://" in str(value) else str(value)
        else:
            text = "" if value is None else str(value)
        found.append({"variable": variable, "value": text, "is_given": name in settings.model_fields_set})
    return found


@page(router, "/operations/doctor", "doctor.html", Data.METRICS)
async def show_findings(context: CurrentContext) -> dict[str, Any]:
    """Examine the server, the database and the store, which takes a minute and a half at most."""
    check_operator(context)
    return {"report": await _examine(context)}


async def _examine(context: RequestContext) -> Report:
    """Return the report of an examination. A server makes one at a time; requests that arrive meanwhile share it."""
    server_context = context.server_context
    running = _EXAMINATIONS.get(server_context)
    if running is None or running.done():
        running = independent_task(in_daemon_thread(partial(examine, server_context.settings, Limits())))
        running.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may await it
        _EXAMINATIONS[server_context] = running
    return await asyncio.shield(running)
