"""The commands pause and resume."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated

import typer
from typer import Argument

from agent_manager.actions import recorded
from agent_manager.cli.options import DataDir, read_settings, run
from eventstore import EventStore
from projections import Projection, load_projections, select_projections
from projections import pause as pause_projections
from projections import resume as resume_projections

Names = Annotated[list[str], Argument(metavar="NAME", help="Projections, as eventstore status lists them.")]
AllNames = Annotated[list[str] | None, Argument(metavar="NAME", help="Projections; all by default.")]
ACTOR = "cli"
"""The actor of actions of the command line."""


def pause(names: Names, data_dir: DataDir = None) -> None:
    """Pause projections: no worker changes their read tables until they are resumed.

    The log and all other projections go on. Reads that must include what was written after the pause fail meanwhile.
    """
    changed, others = _change("projection_paused", pause_projections, names, data_dir)
    typer.echo(_sentence("paused", changed, "paused already", others))


def resume(names: AllNames = None, data_dir: DataDir = None) -> None:
    """Resume paused projections: workers continue where they stopped."""
    changed, others = _change("projection_resumed", resume_projections, names or [], data_dir)
    typer.echo(_sentence("resumed", changed, "not paused", others))


def _change(
    action: str,
    change: Callable[[EventStore, Sequence[Projection]], Awaitable[list[str]]],
    names: Sequence[str],
    data_dir: DataDir,
) -> tuple[list[str], list[str]]:
    """Return the projections that were changed, and those that were as wanted before."""
    settings = read_settings(data_dir)
    projections = select_projections(names, load_projections(settings.projections))

    async def work(store: EventStore) -> list[str]:
        wanted = [each.name for each in projections]
        async with recorded(partial(store.append, actor=ACTOR), store.tenant, action, projections=wanted):
            return await change(store, projections)

    changed = run(work, settings)
    return changed, [each.name for each in projections if each.name not in changed]


def _sentence(done: str, changed: list[str], undone: str, others: list[str]) -> str:
    parts = [f"{word} {', '.join(names)}" for word, names in ((done, changed), (undone, others)) if names]
    return "; ".join(parts)
