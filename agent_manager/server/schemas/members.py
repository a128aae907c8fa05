"""With whom a conversation is shared."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from agent_manager.server.schemas.common import In, Out

User = Annotated[str, Field(min_length=1, max_length=255, description="The user's id within the tenant.")]


class MemberOut(Out):
    """Somebody who may see a conversation."""

    user: str
    access: Literal["own", "write", "read"] = Field(description="own: also share and delete; write: also append.")


class MembersOut(Out):
    """All who may see a conversation, beside the administrators of its tenant."""

    items: list[MemberOut]


class MemberIn(In):
    """With whom to share a conversation."""

    user: User
    access: Literal["read", "write"] = "read"
