"""The work that remains after an erasure because the database cannot do it in the transaction."""

from __future__ import annotations

from collections.abc import Sequence

from agent_manager.backup.archive import Archive
from agent_manager.backup.erasures import write_erasures
from agent_manager.backup.targets import open_target
from agent_manager.settings import ServerSettings
from eventstore import Erasure, EventStore
from eventstore.errors import EventStoreError
from projections import load_projections, retry_parked


async def finish_erasures(
    store: EventStore, settings: ServerSettings, erasures: Sequence[Erasure], tenant: str
) -> list[str]:
    """Apply events again where the transaction could not, and write the receipts beside the backups.

    Args:
        tenant: the tenant of the conversations.

    Returns:
        A sentence for each thing that remains to be done; what was erased is erased nevertheless.
    """
    remarks = []
    if names := {name for erasure in erasures for name in erasure.not_refolded}:
        projections = [each for each in load_projections(settings.projections) if each.name in names]
        await retry_parked(store, projections, tenant=tenant)
        python = {each.name for each in projections if each.text is None}
        remarks = [
            f"the rows of projection {name} are removed: {reason}: run eventstore retry, or eventstore rebuild {name}"
            for name, reason in {n: r for erasure in erasures for n, r in erasure.not_refolded.items()}.items()
            if name not in python
        ]
    if settings.backup_dir and any(erasure.receipt for erasure in erasures):
        try:
            await write_erasures(store, Archive(open_target(settings.backup_dir)))
        except EventStoreError as error:
            remarks.append(f"the receipt is not beside the backups yet, the next backup writes it: {error}")
    return remarks
