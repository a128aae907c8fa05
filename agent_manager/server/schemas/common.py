"""Base classes and fields of the models."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from eventstore.errors import InputError
from eventstore.times import parse_day, parse_time

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


def _given_text(parse: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that reads a text as the command line does."""

    def read(value: Any) -> Any:
        try:
            return parse(value) if isinstance(value, str) else value
        except InputError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(read)


Time = Annotated[AwareDatetime, _given_text(parse_time)]
Day = Annotated[date, _given_text(parse_day)]
Since = Annotated[Time | None, Field(description="From this time on; ISO 8601, in UTC without an offset.")]
Until = Annotated[Time | None, Field(description="Before this time.")]
NewestFirst = Annotated[bool, Field(description="The latest first.")]


class In(BaseModel):
    """Input. Unknown members are errors, so that misspelt ones are noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(In):
    """The page and the period of a list, and the position that it must include."""

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
    request_id: str | None = Field(None, description="The request's id in the server's log, and in `X-Request-ID`.")
    errors: list[Wrong] | None = None
