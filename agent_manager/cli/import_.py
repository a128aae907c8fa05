"""The commands import and seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, tzinfo
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import DownloadColumn, TimeRemainingColumn
from typer import Argument, Option

from agent_manager.cli.options import (
    DataDir,
    Json,
    LogFormat,
    LogLevel,
    Tenant,
    check_tenant_option,
    read_settings,
    run,
    run_stoppable,
)
from agent_manager.cli.output import errors, print_json, print_paragraph, print_remark, progress_bars, text
from agent_manager.importers import ImportReport, import_backup, import_files, migrate
from agent_manager.importers.a2a_demo import EndpointSource
from agent_manager.importers.backup import BackupSource, open_backup
from agent_manager.importers.chat_log import FORMAT_NAMES
from agent_manager.importers.google_adk import AdkSource
from agent_manager.importers.migration import BACKUPS
from agent_manager.importers.openai_agents import OpenaiAgentsSource
from agent_manager.importers.rollback_criteria import has_baseline, measure, write_baseline
from agent_manager.importers.source import Source
from agent_manager.importers.verify import Report
from agent_manager.private_files import write_private
from eventstore import EventStore
from eventstore.errors import InputError
from eventstore.times import parse_zone
from projections import catch_up

Backups = Annotated[Path, Option("--backups", metavar="FOLDER", help="The folder for backups of sources.")]
ReportFile = Annotated[Path | None, Option("--report", metavar="FILE", help="Write the report to it as JSON.")]


def import_(
    paths: Annotated[list[str] | None, Argument(metavar="FILE", help="Files or folders; - is standard input.")] = None,
    strict: Annotated[bool, Option("--strict", help="Stop at the first conversation that is malformed.")] = False,
    format_name: Annotated[
        str | None,
        Option("--format", metavar="NAME", help=f"The format, if it is not recognised: {', '.join(FORMAT_NAMES)}."),
    ] = None,
    from_url: Annotated[
        str | None, Option(metavar="URL", help="An application with the endpoints of the A2A demo.")
    ] = None,
    from_adk: Annotated[str | None, Option(metavar="URL", help="A database of google-adk sessions.")] = None,
    from_openai_agents: Annotated[
        str | None, Option(metavar="URL", help="A database of sessions of the OpenAI Agents SDK.")
    ] = None,
    from_langgraph: Annotated[
        str | None, Option(metavar="URL", help="A database of langgraph-checkpoint-postgres.")
    ] = None,
    from_backup: Annotated[Path | None, Option(metavar="FILE", help="A backup that an import wrote.")] = None,
    backups: Backups = BACKUPS,
    as_json: Json = False,
    report: ReportFile = None,
    zone: Annotated[
        str | None,
        Option(
            "--time-zone",
            metavar="ZONE",
            help="The zone of times without an offset, such as America/Sao_Paulo; UTC by default.",
        ),
    ] = None,
    data_dir: DataDir = None,
    log_format: LogFormat = None,
    log_level: LogLevel = None,
    tenant: Tenant = None,
) -> None:
    """Import chat logs and exports, or migrate from an in-memory application or from a framework's own tables.

    A file is JSON Lines, an array or a document, also compressed with gzip or zstd, or a .zip; a folder stands for the
    files in it. Recognised are messages in the OpenAI chat format, the exports of ChatGPT and Claude, ShareGPT,
    Anthropic Messages, OpenAI Responses, and LangChain's messages.

    \b
      {"id": "a-1", "title": "Trains", "messages": [{"role": "user", "content": "hello"}, …]}

    Each message becomes an event, each tool call a task that its result completes. The time of a message is kept as the
    time when it happened. Importing a file again adds only what is new. A malformed conversation is reported with file,
    line and reason, the others are imported, and the exit code is 1.

    --from-url migrates what an application like the A2A demo holds in memory, --from-adk and --from-openai-agents what
    google-adk and the OpenAI Agents SDK store in SQLite or PostgreSQL. A backup is written to the --backups folder,
    what is new is stored, and every conversation, message and task is compared with the backup. If something differs,
    it is reported, and the exit code is 1. If the store holds another conversation under an id of the source, nothing
    is written at all.

    --from-langgraph takes over the threads in tables of langgraph-checkpoint-postgres, and compares them with the
    source: checkpoints, writes and messages. The same graphs go on with them.

    Older tables of google-adk (1.x, events in columns) hold local times without a zone. They require --time-zone: the
    zone of the machine that the agents ran on.
    """
    settings = read_settings(data_dir, tenant, log_format=log_format, log_level=log_level)
    sources = {
        "--from-url": from_url,
        "--from-adk": from_adk,
        "--from-openai-agents": from_openai_agents,
        "--from-langgraph": from_langgraph,
        "--from-backup": from_backup,
    }
    *others, last = sources
    if bool(paths) + sum(source is not None for source in sources.values()) != 1:
        raise typer.BadParameter(f"give FILEs, or one of {', '.join(others)} and {last}")
    if paths and report is not None:
        raise typer.BadParameter(f"--report is for {', '.join(others)} and {last}")
    if not paths and format_name is not None:
        raise typer.BadParameter("--format is for FILEs")
    if from_backup is not None and zone is not None:
        raise typer.BadParameter("--time-zone: a backup keeps the zone that it was taken with")
    known_zone = UTC if zone is None else parse_zone(zone, "--time-zone")

    async def import_logs(store: EventStore) -> None:
        imported = await import_chat_logs(
            store, paths or (), tenant=tenant, strict=strict, zone=known_zone, format_name=format_name, as_json=as_json
        )
        if imported.rejected:
            raise typer.Exit(1)

    async def import_source() -> Report:
        with errors.status("…") as status:

            def on_step(step: str) -> None:
                status.update(f"{step} …")

            async with EventStore(settings) as store:
                await check_tenant_option(store, tenant)
                if from_langgraph is not None:
                    imported: Report = await langgraph_importer()(from_langgraph, store, on_step=on_step)
                    return imported
                if from_backup is not None:
                    backup = open_backup(from_backup)
                    if tenant is None or backup.tenant == settings.tenant:
                        return await import_backup(backup, store, on_step=on_step)
                    return await migrate(
                        BackupSource(backup), store, backups=backups, time_zone=backup.time_zone, on_step=on_step
                    )
                source: Source
                if from_url is not None:
                    source = EndpointSource(from_url)
                elif from_adk is not None:
                    source = AdkSource(from_adk, zone)
                else:
                    source = OpenaiAgentsSource(str(from_openai_agents), zone)
                async with source:
                    result = await migrate(source, store, backups=backups, time_zone=zone, on_step=on_step)
                if from_url is not None and not has_baseline(backups, store.tenant, from_url):
                    on_step("measuring the latency, for a rollback")
                    write_baseline(await measure(from_url, store.tenant), backups)
                return result

    if paths:
        run(import_logs, settings, tenant)
    else:
        print_report(run_stoppable(import_source()), as_json, report)


def seed(as_json: Json = False, data_dir: DataDir = None, tenant: Tenant = None) -> None:
    """Import a small sample: two conversations, one with tool calls, one in Portuguese.

    Repeating the command adds nothing.
    """

    async def work(store: EventStore) -> None:
        with as_file(files("agent_manager").joinpath("sample.jsonl")) as sample:
            await import_chat_logs(store, [str(sample)], tenant=tenant, strict=True, as_json=as_json)

    run(work, read_settings(data_dir, tenant), tenant)


def langgraph_importer() -> Any:
    """Return the function that imports threads of LangGraph.

    Raises:
        InputError: LangGraph's package is not installed.
    """
    try:
        from agent_manager.importers.langgraph import import_langgraph
    except ImportError as error:
        raise InputError(f"--from-langgraph: {error}: pip install 'flowagents-eventstore[langgraph]'") from None
    return import_langgraph


async def import_chat_logs(
    store: EventStore,
    paths: Sequence[str],
    *,
    tenant: str | None,
    strict: bool,
    as_json: bool,
    zone: tzinfo = UTC,
    format_name: str | None = None,
) -> ImportReport:
    """Import files with a progress bar, print the result, and bring the read tables up to date."""
    with progress_bars(DownloadColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task("importing", total=None)

        def show(now: ImportReport) -> None:
            progress.update(bar, completed=now.bytes_read, total=now.total_bytes)

        report = await import_files(
            store, paths, tenant=tenant, strict=strict, zone=zone, format_name=format_name, progress=show
        )
    if as_json:
        print_json(report)
    else:
        for problem in (*report.problems, *report.unread_times):
            typer.echo(str(problem), err=True)
        print_paragraph(
            f"{report.conversations:,} conversations, {report.messages:,} messages, {report.tasks:,} tasks: "
            f"{report.new_events:,} new events, {report.known_events:,} known already"
            + (f"; {report.rejected:,} not imported" if report.rejected else "")
        )
        if report.left_out:
            left_out = ", ".join(f"{what} ({number:,})" for what, number in sorted(report.left_out.items()))
            print_remark(f"left out of these conversations: {left_out}")
    with errors.status("updating the read tables …"):
        await catch_up(store)
    return report


def print_report(report: Report, as_json: bool, file: Path | None) -> None:
    """Print a report, and exit with code 1 if there is something to act on."""
    if file is not None:
        write_private(file, json.dumps(report.values(), indent=2) + "\n")  # differences quote messages
    if as_json:
        print_json(report.values())
    else:
        for line in report.lines():
            typer.echo(text(line))
    if not report.is_clean:
        raise typer.Exit(1)
