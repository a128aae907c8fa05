"""The kinds of data that endpoints return or change, and the scope that each needs: the only place that decides it.

==================  =========  ======================================================================================
kind                scope      what belongs to it
==================  =========  ======================================================================================
``STATUS``          none       whether the server and PostgreSQL answer
``CONTENT``         ``read``   conversations, messages, tasks, files, members, agents, pending messages, searches and
                               statistics, as they are now
``PAST``            ``audit``  a conversation as it was at a version, position or time
``LOG``             ``audit``  events as the log holds them: positions, salts, digests, metadata; pages and streams
``CONVERSATION``    ``write``  changes to conversations: messages, events, names, members, deletions
``REGISTRY``        ``admin``  changes to the registered agents
==================  =========  ======================================================================================

A route declares its kind (``openapi_extra=needs(Data.CONTENT)``); the declaration is what requests are checked against
and what the OpenAPI shows, and a route without one cannot be created. If a query parameter asks for data of another
kind, the route declares that too: ``needs(Data.CONTENT, version=Data.PAST)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from agent_manager.http.models.common import Json
from agent_manager.identity import Scope

SCHEME = "token"
"""The name of the security scheme in the OpenAPI."""
_KIND, _BY_PARAMETER = "x-data", "x-data-by-parameter"


class Data(Enum):
    """A kind of data."""

    STATUS = "status"
    CONTENT = "content"
    PAST = "past"
    LOG = "log"
    CONVERSATION = "conversation"
    REGISTRY = "registry"

    @property
    def scope(self) -> Scope | None:
        """The scope that it needs; None if no token is needed."""
        return _SCOPES[self]


_SCOPES = {
    Data.STATUS: None,
    Data.CONTENT: Scope.READ,
    Data.PAST: Scope.AUDIT,
    Data.LOG: Scope.AUDIT,
    Data.CONVERSATION: Scope.WRITE,
    Data.REGISTRY: Scope.ADMIN,
}


def needs(kind: Data, **by_parameter: Data) -> Json:
    """Return the declaration of an endpoint (``openapi_extra``).

    Args:
        kind: of what it returns or changes.
        by_parameter: kinds that query parameters ask for, by the parameters' names.
    """
    declared: Json = {
        "security": [] if kind.scope is None else [{SCHEME: [kind.scope.value]}],
        _KIND: kind.value,
    }
    if by_parameter:
        declared[_BY_PARAMETER] = {name: each.value for name, each in by_parameter.items()}
    return declared


class Requirement:
    """What an endpoint declares.

    Args:
        declared: its ``openapi_extra``.

    Attributes:
        scope: the scope that every request needs; None if no token is needed.

    Raises:
        TypeError: it declares no kind of data.
    """

    def __init__(self, declared: Json | None) -> None:
        if not declared or _KIND not in declared:
            raise TypeError("an endpoint must declare its kind of data: openapi_extra=needs(Data.…)")
        self.scope = Data(declared[_KIND]).scope
        self._by_parameter = {name: Data(kind).scope for name, kind in declared.get(_BY_PARAMETER, {}).items()}

    def scopes(self, parameters: Iterable[str]) -> list[Scope]:
        """Return the scopes that a request with these query parameters needs."""
        asked = [self.scope, *(self._by_parameter.get(name) for name in parameters)]
        return [scope for scope in asked if scope is not None]
