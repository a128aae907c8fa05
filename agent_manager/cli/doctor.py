"""The command doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from agent_manager.cli.options import DataDir, Json, read_settings
from agent_manager.cli.output import print_error, print_json, row_value, text
from agent_manager.doctor import Report, Severity, examine
from agent_manager.doctor.database import Limits
from eventstore.errors import EventStoreError, SettingsError

_EXIT_CODES = {Severity.OK: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}
_NOT_EXAMINED = 3
_COLOURS = {Severity.CRITICAL: "red", Severity.WARNING: "yellow", Severity.NOT_CHECKED: "blue"}
_WIDTH = max(map(len, Severity)) + 2


def doctor(
    warning: Annotated[
        float,
        Option("--warning", min=0, metavar="SECONDS", help="Warn of a lag, transaction, lock or append this old."),
    ] = Limits.warning,
    critical: Annotated[
        float, Option("--critical", min=0, metavar="SECONDS", help="The age from which on that is critical.")
    ] = Limits.critical,
    certificate: Annotated[
        list[Path] | None,
        Option(
            "--certificate", metavar="FILE", help="Also check this PEM file, such as that of --tls-cert; repeatable."
        ),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check the server, the database, the store, its backups, disks and certificates; say what to do.

    It only reads, in a minute and a half at most. Exit code: 0 all is well, 1 warnings, 2 something is critical, 3 the
    server could not be examined. What the login may not see is listed as not checked, and does not count.
    """
    try:
        if critical < warning:
            raise SettingsError(f"--critical {critical:g}: is below --warning {warning:g}: give a larger number")
        settings = read_settings(data_dir)
        report = examine(settings, Limits(warning, critical), certificate or ())
    except EventStoreError as error:
        print_error("eventstore", str(error))
        raise typer.Exit(_NOT_EXAMINED) from None
    if as_json:
        print_json(
            {
                "severity": report.severity.value,
                "is_complete": report.is_complete,
                "findings": [row_value(finding) for finding in report.findings],
            }
        )
    else:
        _print(report)
    raise typer.Exit(_EXIT_CODES[report.severity] if report.is_complete else _NOT_EXAMINED)


def _print(report: Report) -> None:
    """Print each problem, and in a line each what was not checked for one reason, and what is well."""
    groups: dict[tuple[Severity, str, str], list[str]] = {}
    for each in report.findings:
        if each.severity in (Severity.CRITICAL, Severity.WARNING):
            _print_finding(each.severity, f"{each.check}: {each.finding}", each.remedy)
        else:
            reason = each.finding if each.severity is Severity.NOT_CHECKED else ""
            groups.setdefault((each.severity, reason, each.remedy), []).append(each.check)
    for (severity, reason, remedy), checks in groups.items():
        _print_finding(severity, ", ".join(checks) + (f": {reason}" if reason else ""), remedy)


def _print_finding(severity: Severity, line: str, remedy: str) -> None:
    """Print a finding, and what to do in a line of its own, which is not wrapped so that it can be copied."""
    typer.echo(typer.style(f"{severity:<{_WIDTH}}", fg=_COLOURS.get(severity)) + text(line))
    if remedy:
        typer.echo(" " * _WIDTH + text(remedy))
