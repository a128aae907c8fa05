"""Comparing what was done with what is stored and what was read."""

from eventstore.check.verify.appends import unsettled
from eventstore.check.verify.compare import compare
from eventstore.check.verify.findings import Appends, Findings, Kind, Line, Reading, Violation
from eventstore.check.verify.records import Records

__all__ = ["Appends", "Findings", "Kind", "Line", "Reading", "Records", "Violation", "compare", "unsettled"]
