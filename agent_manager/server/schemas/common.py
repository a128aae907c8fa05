"""What several models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Json: TypeAlias = dict[str, Any]

Cursor = Annotated[str | None, Field(description="`next` of the page before; of the same list, order and filters.")]
Limit = Annotated[int, Field(ge=1, le=1000, description="Rows of a page.")]
AtLeast = Annotated[
    str | None,
    Field(
        max_length=100,
        description="A `position`, as an answer has it: this answer holds what was appended up to there. What was "
        "written through this server it always holds.",
    ),
]
Position = Annotated[int, Field(description="Orders the whole log.")]
PositionToken = Annotated[
    int | str,
    Field(
        description="What `at_least` takes: the position in the log for callers with the scope `audit`, a sealed text "
        "that stands for it for all others."
    ),
]
Since = Annotated[AwareDatetime | None, Field(description="From this time on; with an offset, as in ISO 8601.")]
Until = Annotated[AwareDatetime | None, Field(description="Before this time.")]
NewestFirst = Annotated[bool, Field(description="The latest first.")]


class Out(BaseModel):
    """Something that is given."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class In(BaseModel):
    """Something that is taken. A member that it does not know is an error, so that no misspelt one is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PositionedOut(Out):
    """Something that is given with its position."""

    position: PositionToken

    def told(self, position: Callable[[int], int | str]) -> Self:
        """Return the same with its position as the caller is told positions."""
        assert isinstance(self.position, int)
        return self.model_copy(update={"position": position(self.position)})


class PageOut(Out):
    """A page of a list."""

    next: str | None = Field(description="The cursor of the next page (`after`); null where there is none.")


class PageQuery(In):
    """Which page of a list."""

    limit: Limit = 50
    after: Cursor = None
    newest_first: NewestFirst = False
    at_least: AtLeast = None


class Wrong(Out):
    """What is wrong with a part of the input."""

    where: Literal["body", "query", "path", "header"]
    name: str
    message: str


class Problem(Out):
    """What went wrong, as RFC 9457 has it (application/problem+json)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:eventstore:` and the kind of error, for programs.")
    title: str
    status: int
    detail: str = Field(description="What was wrong and what to do.")
    errors: list[Wrong] | None = None
