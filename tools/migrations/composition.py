"""Composes the migrations in ``db/migrations`` from the objects in ``db/schema``: ``python -m tools.migrations``.

An object's file holds what makes it, with its comment, owner and grants. What reverts it follows from its CREATE
statement, or follows in the file after ``-- migrate:down``. ``db/schema/order.txt`` says which objects a migration
has, in which order. A migration repeats each file after a line ``-- file: topic/object.sql``, so the migrations
themselves tell which text of a file a database has.

Until the first release, ``python -m tools.migrations`` composes all migrations again. From then on (``order.txt`` has
the line ``released``) no migration ever changes, and ``python -m tools.migrations next NAME`` composes one further
migration from the files that have changed since. It replaces functions and creates new objects. It refuses what it
cannot derive, such as a changed table: that migration is written by hand, and names the file it has caught up with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

SEARCH_PATH = "SELECT set_config('search_path', format('%I, pg_temp', current_schema()), true);"
"""Names are looked up in the store's schema and, last, among temporary objects: nobody can put one in front."""
_CREATE = re.compile(r"^CREATE (FUNCTION|SEQUENCE|TABLE|TYPE|VIEW) (\w+)", re.MULTILINE)
_FILE = re.compile(r"^-- (file|by hand): (\S+)(?: ([0-9a-f]{12}))?\n", re.MULTILINE)
_FUNCTION = re.compile(r"^CREATE (?:OR REPLACE )?FUNCTION(.*?)^(?:LANGUAGE|AS)\b", re.MULTILINE | re.DOTALL)
_RIGHTS = re.compile(r"^(?:SELECT eventstore_\w+\(|REVOKE |GRANT ).*?;$", re.MULTILINE | re.DOTALL)


class CompositionError(Exception):
    """The files do not make a migration; the message says what to do."""


class Schema:
    """The objects and migrations below a folder such as ``db``."""

    def __init__(self, folder: Path) -> None:
        """Read the order of the objects.

        Raises:
            CompositionError: a file is missing in the order, or the other way round.
        """
        self._folder = folder
        self.is_released = False
        self.baseline: dict[str, list[str]] = {}
        files: list[str] = []
        for line in (folder / "schema" / "order.txt").read_text(encoding="utf-8").splitlines():
            if line.strip() == "released":
                self.is_released = True
            elif line.startswith(" "):
                files.append(f"{line.strip()}.sql")
            elif line and not line.startswith("#"):
                self.baseline[line.strip()] = files = []
        self.files = [file for files in self.baseline.values() for file in files]
        found = {path.relative_to(folder / "schema").as_posix() for path in (folder / "schema").rglob("*.sql")}
        if differing := found.symmetric_difference(self.files):
            raise CompositionError(f"schema/order.txt and the files differ in {', '.join(sorted(differing))}")

    def compose(self) -> dict[str, str]:
        """Return the texts of the migrations of the first release, by file name."""
        first = next(iter(self.baseline))
        return {
            f"{name}.sql": _migration(
                ([self._refuse_taken_names()] if name == first else []) + [self._block(file) for file in files],
                [self._down(file) for file in reversed(files)],
            )
            for name, files in self.baseline.items()
        }

    def write(self) -> None:
        """Compose all migrations again.

        Raises:
            CompositionError: they have been released.
        """
        if self.is_released:
            raise CompositionError("the migrations have been released and must not change: use next NAME")
        for path in self._migrations():
            path.unlink()
        for name, text in self.compose().items():
            (self._folder / "migrations" / name).write_text(text, encoding="utf-8")

    def differences(self) -> list[str]:
        """Return the files whose text is not what the migrations make; before the release, also whole migrations."""
        released = self._released()
        names = [file for file in self.files if not self._is_current(file, released.get(file))]
        if not self.is_released:
            existing = {path.name: path.read_text(encoding="utf-8") for path in self._migrations()}
            composed = self.compose()
            names += [n for n in sorted(existing.keys() | composed.keys()) if existing.get(n) != composed.get(n)]
        return names

    def next(self, name: str) -> Path:
        """Compose a migration from the files that have changed since the last one, and return its path.

        Raises:
            CompositionError: nothing has changed, or a change cannot be derived.
        """
        released = self._released()
        changed = [file for file in self.files if not self._is_current(file, released.get(file))]
        if not changed:
            raise CompositionError("no file differs from what the migrations make")
        ups, downs = [], []
        for file in changed:
            if (before := released.get(file)) is None:
                ups.append(self._block(file))
                downs.append(self._down(file))
            else:
                self._refuse_underivable(file, before)
                ups.append(_replacing(self._block(file)))
                downs.append(_replacing(before))
        path = self._folder / "migrations" / f"{datetime.now(UTC):%Y%m%d%H%M%S}_{name}.sql"
        path.write_text(_migration(ups, downs[::-1]), encoding="utf-8")
        return path

    def _migrations(self) -> Iterator[Path]:
        return iter(sorted((self._folder / "migrations").glob("*.sql")))

    def _released(self) -> dict[str, str]:
        """The text of each file that the migrations make; of a migration by hand, the digest of the text."""
        texts: dict[str, str] = {}
        for path in self._migrations():
            up = path.read_text(encoding="utf-8").partition("-- migrate:down")[0]
            _, *parts = _FILE.split(up)
            for kind, file, digest, text in zip(*[iter(parts)] * 4, strict=True):
                texts[file] = text.strip() if kind == "file" else digest
        return texts

    def _is_current(self, file: str, released: str | None) -> bool:
        text = self._up(file)
        return released is not None and (released == _digest(text) or _replacing(released) == _replacing(text))

    def _refuse_underivable(self, file: str, before: str) -> None:
        text = self._up(file)
        signatures = [_FUNCTION.findall(t) for t in (before, text)]
        lost = set(_RIGHTS.findall(before)) - set(_RIGHTS.findall(text))
        if signatures[0] != signatures[1] or len(signatures[0]) != 1 or lost:
            raise CompositionError(
                f"the change of {file} cannot be derived, only that of a function's body: write a migration by hand "
                f"that makes it, with the line\n-- by hand: {file} {_digest(text)}"
            )

    def _sections(self, file: str) -> tuple[str, str]:
        up, _, down = (self._folder / "schema" / file).read_text(encoding="utf-8").partition("-- migrate:down\n")
        return up.strip(), down.strip()

    def _up(self, file: str) -> str:
        return self._sections(file)[0]

    def _down(self, file: str) -> str:
        up, down = self._sections(file)
        return down or "\n".join(f"DROP {kind} {name};" for kind, name in reversed(_CREATE.findall(up)))

    def _block(self, file: str) -> str:
        return f"-- file: {file}\n{self._up(file)}"

    def _refuse_taken_names(self) -> str:
        created = [made for file in self.files for made in _CREATE.findall(self._up(file))]
        relations = ", ".join(f"'{name}'" for kind, name in created if kind in ("SEQUENCE", "TABLE", "VIEW"))
        text = (self._folder / "schema" / "refuse_taken_names.template").read_text(encoding="utf-8")
        return text.strip().replace("{relations}", relations)


def _migration(ups: list[str], downs: list[str]) -> str:
    return (
        "\n\n".join(
            ["-- migrate:up", SEARCH_PATH, *ups, "-- migrate:down", SEARCH_PATH, "\n".join(filter(None, downs))]
        )
        + "\n"
    )


def _replacing(text: str) -> str:
    return re.sub(r"^CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", text, flags=re.MULTILINE)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]
