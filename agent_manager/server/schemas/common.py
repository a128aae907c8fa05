"""Base classes and fields of the models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Cursor = Annotated[str | None, Field(description="`next` of the page before, with the same order and filters.")]
Limit = Annotated[int, Field(ge=1, le=1000, description="Maximum number of items.")]
AtLeast = Annotated[
    str | None,
    Field(
        max_length=100,
        description="A `position` from another response: this response includes everything up to it. What was written "
        "through this server is always included.",
    ),
]
Position = Annotated[int, Field(description="The position in the log.")]
PositionToken = Annotated[
    int | str,
    Field(
        description="What `at_least` takes: the position in the log for callers with the scope `audit`, a sealed text "
        "that stands for it for all others."
    ),
]
Since = Annotated[AwareDatetime | None, Field(description="From this time on; ISO 8601 with an offset.")]
Until = Annotated[AwareDatetime | None, Field(description="Before this time.")]
NewestFirst = Annotated[bool, Field(description="The latest first.")]


class In(BaseModel):
    """Input. Unknown members are errors, so that misspelt ones are noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(In):
    """Which page of a list to return, and of what time."""

    limit: Limit = 50
    after: Cursor = None
    newest_first: NewestFirst = False
    since: Since = None
    until: Until = None
    at_least: AtLeast = None


class Out(BaseModel):
    """Output."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    def to_bytes(self) -> bytes:
        """Return the JSON text."""
        return self.model_dump_json().encode()


class PageOut(Out):
    """A page of a list."""

    next: str | None = Field(description="The cursor of the next page (`after`); null if this page is the last.")


class PositionedOut(Out):
    """Output with a position."""

    position: PositionToken

    def with_position(self, convert: Callable[[int], int | str]) -> Self:
        """Return a copy whose position is converted to what the caller may see."""
        assert isinstance(self.position, int)
        return self.model_copy(update={"position": convert(self.position)})


class Wrong(Out):
    """A part of the input that is not valid."""

    where: Literal["body", "query", "path", "header"]
    name: str
    message: str


class Problem(Out):
    """An error, as application/problem+json (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:eventstore:` and the kind of error, for programs.")
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do.")
    errors: list[Wrong] | None = None
