"""The command seed."""

from __future__ import annotations

from importlib.resources import as_file, files

from agent_manager.cli.import_ import import_chat_logs
from agent_manager.cli.options import DataDir, Json, Tenant, read_settings, run
from eventstore import EventStore


def seed(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Import a small sample: two conversations, one with tool calls, one in Portuguese.

    Repeating the command adds nothing.
    """

    async def work(store: EventStore) -> None:
        with as_file(files("agent_manager").joinpath("sample.jsonl")) as sample:
            await import_chat_logs(store, [str(sample)], tenant=tenant, strict=True, as_json=as_json)

    run(work, read_settings(data_dir, tenant), tenant)
