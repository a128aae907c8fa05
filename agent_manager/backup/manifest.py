"""The documents of a backup: its manifest, which names the compressed files that it consists of, and receipts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT = 1
EVENT_COLUMNS = (
    "position", "timestamp", "version", "schema_version", "conversation_id", "id", "tenant_id", "event_type", "actor",
    "content", "metadata", "salt", "digest",
)  # fmt: skip
TABLES = {
    "identity_tenants": ("id", "name", "created_at", "suspended_at"),
    "identity_users": ("tenant_id", "id", "kind", "name", "created_at", "disabled_at"),
    "identity_keys": (
        "id", "tenant_id", "user_id", "name", "hash", "scopes", "created_at", "expires_at", "revoked_at",
        "last_used_at",
    ),
    "identity_erasures": ("tenant_id", "salt", "hash", "erased_at"),
    "retention_rules": (
        "tenant_id", "id", "age", "since", "state", "user_id", "metadata", "reason", "added_by", "added_at",
        "applied_at", "outcome",
    ),
    "legal_holds": ("tenant_id", "id", "conversation_id", "user_id", "reason", "placed_by", "placed_at"),
    "blobs": ("tenant_id", "conversation_id", "sha256", "size", "created_at"),
    "blob_chunks": ("tenant_id", "sha256", "number", "content"),
}  # fmt: skip
"""The tables beside the log, with their columns; in an order in which they can be filled."""
SEALED_TABLES = {
    "audit_tiles": ("level", "index", "last_position", "hash", "content"),
    "audit_checkpoints": ("size", "last_position", "sealed_at", "note", "bundle"),
    "audit_cosignatures": ("size", "line"),
}
"""The tables of the sealed log, whose rows never change."""
FOLDERS = {table: "files" if table.startswith("blob") else "identity" for table in TABLES}
"""The folder of each of these tables. Those in ``files`` have row-level security for the owner, too."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Part(_Model):
    """A compressed file of a backup.

    Attributes:
        size: bytes of the file.
        sha256: of the file.
    """

    name: Annotated[str, Field(pattern=r"^(?:log|identity|files|audit)/[\w-]+\.copy\.gz$")]
    columns: tuple[str, ...]
    rows: int
    size: int
    sha256: str


class Segment(Part):
    """A part of the log.

    Attributes:
        first, last: the positions of its first and its last event.
        last_time: when it was appended.
        text_bytes: size of the uncompressed text.
        erased: how many of its events are erased.
    """

    first: int
    last: int
    last_digest: str
    last_time: datetime
    text_bytes: int
    erased: int


class SealedPart(Part):
    """A part of a table of the sealed log.

    Attributes:
        after, last: it has the rows that follow a number, up to another: the position of their last event, or, of
            cosignatures, the size of their checkpoint.
    """

    table: str
    after: int
    last: int


class Manifest(_Model):
    """A backup, from which the log can be restored as it was then.

    Attributes:
        complete_to: everything that was acknowledged before this time is in it. Earlier than ``created_at`` if an
            append in flight held the log back (``docs/concepts/order.md``).
        position: the position up to which the log was final then.
        tables: by the name of the table; none while the backup is incomplete.
        sealed: the sealed log, as far as the backup has its events; none while the backup is incomplete.
    """

    format: int
    created_at: datetime
    complete_to: datetime
    position: int
    server_version: str
    segments: tuple[Segment, ...]
    tables: dict[str, Part]
    sealed: tuple[SealedPart, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check that the segments follow each other, and that all files have the columns of the format."""
        position = 0
        for segment in self.segments:
            if not position < segment.first <= segment.last or segment.columns != EVENT_COLUMNS:
                raise ValueError(segment.name)
            position = segment.last
        if any(part.columns != TABLES.get(table) for table, part in self.tables.items()) or any(
            part.columns != SEALED_TABLES.get(part.table) for part in self.sealed
        ):
            raise ValueError("columns")
        return self

    @property
    def id(self) -> str:
        """The name of the backup: its time in UTC, to the microsecond."""
        return self.created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")

    @property
    def age_seconds(self) -> float:
        """The time whose events would be lost if it were restored now."""
        return (datetime.now(UTC) - self.complete_to).total_seconds()

    @property
    def events(self) -> int:
        """The number of its events."""
        return sum(segment.rows for segment in self.segments)

    @property
    def size(self) -> int:
        """Bytes of its files, with those that earlier backups share."""
        return sum(part.size for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All its files."""
        return (*self.segments, *self.tables.values(), *self.sealed)


class ErasureRecord(_Model):
    """The receipt of an erasure, as far as it is needed to erase the same events of an older backup.

    Attributes:
        versions, until, erases_members, reason: see :class:`eventstore.ConversationErased`.
    """

    id: UUID
    tenant_id: str
    conversation_id: UUID
    is_whole: bool
    versions: tuple[tuple[int, int], ...]
    until: datetime
    erases_members: bool
    reason: str
    erased_at: datetime

    @property
    def multirange(self) -> str:
        """The versions as PostgreSQL writes them."""
        return "{" + ",".join(f"[{first},{last}]" for first, last in self.versions) + "}"
