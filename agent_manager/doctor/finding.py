"""The findings of an examination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from eventstore.errors import EventStoreError


class Severity(StrEnum):
    """The severity of a finding; the worst comes first."""

    CRITICAL = "critical"
    """Data can be lost, seen by others, or the store does not work."""
    WARNING = "warning"
    """It works, and something needs attention."""
    NOT_CHECKED = "not checked"
    """The login may not see it, or it took too long."""
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; one that fails has a finding for each problem.

    Attributes:
        remedy: what to do: commands, or statements of SQL; empty if nothing.
    """

    check: str
    severity: Severity
    finding: str
    remedy: str = ""

    @classmethod
    def of_error(cls, check: str, error: EventStoreError | str) -> Finding:
        """Return the critical finding for an error's text, which ends with a colon and what to do."""
        finding, colon, remedy = str(error).rpartition(": ")
        return cls(check, Severity.CRITICAL, finding if colon else remedy, remedy if colon else "")


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of all checks, the worst first."""

    findings: tuple[Finding, ...]
    is_complete: bool

    @property
    def severity(self) -> Severity:
        """The exit code of the worst finding; what was not checked does not count."""
        found = {finding.severity for finding in self.findings}
        return next((each for each in (Severity.CRITICAL, Severity.WARNING) if each in found), Severity.OK)
