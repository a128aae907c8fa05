"""Finds, with squawk, what a migration does that blocks a large log for long, or that stops the code before it.

The migrations of the baseline are not examined: they create the tables that they change, in an empty schema. Of every
other one the way up is, because that runs while the service works. Reverting may break code and rewrite tables.

Squawk sees statements, not the bodies of functions and DO blocks, and knows nothing of the size of a table.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tools.migrations.composition import CompositionError

_NOT_APPLIED = {
    # A failed migration leaves nothing behind; what transaction:false leaves (an invalid index) must not be skipped.
    "prefer-robust-stmts",
    # Every migration begins with its timeouts: the query migration_settings.
    "require-lock-timeout", "require-statement-timeout",
    # Style; the types follow the plan that the tables come from.
    "prefer-bigint-over-int", "prefer-bigint-over-smallint", "prefer-identity", "prefer-text-field",
    "prefer-timestamp-tz", "ban-char-field",
}  # fmt: skip
_STOPS_OLDER_CODE = {
    "ban-drop-column", "ban-drop-database", "ban-drop-function", "ban-drop-table", "ban-drop-schema",
    "renaming-column", "renaming-table", "ban-drop-not-null", "ban-drop-type", "ban-drop-view", "ban-drop-trigger",
}  # fmt: skip
_REQUIRES = re.compile(r"^INSERT INTO eventstore_migrations VALUES \('0 \d{14}'\);$", re.MULTILINE)
_UP = re.compile(r"^-- migrate:up( transaction:false)?\s*$(.*?)(?=^-- migrate:down|\Z)", re.MULTILINE | re.DOTALL)


def problems(path: Path) -> list[str]:
    """Return a line for each problem of a migration.

    Raises:
        CompositionError: squawk is not installed, or the file is not a migration.
    """
    found = _UP.search(text := path.read_text(encoding="utf-8"))
    if found is None:
        raise CompositionError(f"{path.name}: has no line -- migrate:up")
    is_transaction, up = not found.group(1), found.group(2)
    program = shutil.which("squawk", path=str(Path(sys.executable).parent)) or shutil.which("squawk")
    if program is None:
        raise CompositionError("squawk is not installed: pip install squawk-cli")
    command = [program, "--reporter", "json", "--pg-version", "15", "--stdin-filepath", path.name]
    done = subprocess.run(
        [*command, *(["--assume-in-transaction"] if is_transaction else [])],
        input=up, capture_output=True, text=True, check=False,
    )  # fmt: skip
    offset = text[: found.start(2)].count("\n") + 1
    lines = []
    for each in json.loads(done.stdout):
        rule = each["rule_name"]
        if rule in _NOT_APPLIED or (rule in _STOPS_OLDER_CODE and _REQUIRES.search(up)):
            continue
        lines.append(f"{path.name}:{each['line'] + offset}: {rule}: {each['message']} {each.get('help') or ''}".strip())
    return lines


def problems_after(baseline: Iterable[str], folder: Path) -> list[str]:
    """Return the problems of all migrations in a folder but those of the baseline, which are given by name."""
    known = set(baseline)
    return [line for path in sorted(folder.glob("*.sql")) if path.stem not in known for line in problems(path)]
