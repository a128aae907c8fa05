"""A connection whose queries carry their scope: role, caller and query are sent in one round trip and transaction.

The settings of role and caller precede the query and one Sync of the protocol. So they are one transaction without
BEGIN and COMMIT, and end with it: the next query has no caller until it sets one, and a pooler may give each
transaction another session, in which another part of a store has set another role. psycopg's own pipeline mode would
cost a third of a page of messages; here libpq receives the messages directly (``psycopg.pq``).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from time import monotonic
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg import abc, capabilities, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.rows import TupleRow

from eventstore.database.connection import Connection, Message, statement_name
from eventstore.database.queries import query as load_query
from eventstore.scope import Caller

USES_TO_PREPARE = 5
"""A query that a connection runs so often is prepared there."""
MAX_PREPARED = 100

Cursor: TypeAlias = type[psycopg.AsyncCursor[TupleRow]]
_Key: TypeAlias = tuple[bytes, tuple[int, ...]]
"""The text of a query, and the types of its parameters."""


class ScopedConnection(Connection):
    """A connection that also runs queries with a scope. Only one coroutine may use it at a time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._transformers: dict[Cursor, tuple[abc.Transformer, Format]] = {}
        self._uses: OrderedDict[_Key, int] = OrderedDict()
        self._names: dict[_Key, bytes] = {}
        self._has_set_caller = False

    async def fetch(self, query: Any, parameters: Any, caller: Caller | None, cursor: Cursor) -> list[TupleRow]:
        """Run a query for a caller, and return its rows; the caller None sees no tenant's data.

        A parameter ``conversation_id`` also tells row-level security which conversation the query is about.

        Args:
            cursor: the class of cursor that determines how values are read.
        """
        if cursor not in self._transformers:
            reader = cursor(self)
            self._transformers[cursor] = Transformer(reader), reader.format
        transformer, result_format = self._transformers[cursor]
        text, values = _with_numbers(_text(query, self), parameters)
        dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        types, formats = tuple(transformer.types or ()), list(transformer.formats or ())
        messages = self._set_caller(caller, _conversation_id(parameters))
        name = self._prepare((text, types), messages)
        if name is None:
            send = partial(self.pgconn.send_query_params, text, dumped, types, formats, result_format)
        else:
            send = partial(self.pgconn.send_query_prepared, name, dumped, formats, result_format)
        began = monotonic()
        try:
            result = await self.run_pipeline([*messages, Message(send)])
        finally:
            self.log_if_slow(query, monotonic() - began)
        if result.status != ExecStatus.TUPLES_OK:
            return []
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    async def set_caller(self, caller: Caller | None) -> None:
        """Set the role and the caller until the transaction ends; the caller None sees no tenant's data."""
        await self.run_pipeline(self._set_caller(caller, ""))

    def _set_caller(self, caller: Caller | None, conversation_id: str) -> list[Message]:
        """Return the messages that set role and caller, and first prepare the statement for it."""
        messages = []
        if not self._has_set_caller:
            send = partial(self.pgconn.send_prepare, _SET_CALLER_NAME, _SET_CALLER)
            messages.append(Message(send, partial(setattr, self, "_has_set_caller", True)))
        tenant, user = (caller.tenant, caller.user or "") if caller else ("", "")
        values = [text.encode() for text in (self.role, tenant, user, conversation_id)]
        return [*messages, Message(partial(self.pgconn.send_query_prepared, _SET_CALLER_NAME, values))]

    def _prepare(self, key: _Key, messages: list[Message]) -> bytes | None:
        """Return the name of the prepared statement for a query, or None if it is not worth preparing yet.

        Messages that prepare it, and close the least recently used one, are added to ``messages``.
        """
        uses = self._uses[key] = self._uses.pop(key, 0) + 1
        if len(self._uses) > MAX_PREPARED:
            oldest, _ = self._uses.popitem(last=False)
            if (unused := self._names.pop(oldest, None)) is not None:
                messages.append(self._close_statement(unused))
        if uses < USES_TO_PREPARE:
            return None
        name = self._names.get(key)
        if name is None:
            name = statement_name(*key)
            send = partial(self.pgconn.send_prepare, name, *key)
            messages.append(Message(send, partial(self._names.__setitem__, key, name)))
        return name

    def _close_statement(self, name: bytes) -> Message:
        # A pooler renames prepared statements. It knows which one is meant only by the protocol's message.
        if capabilities.has_send_close_prepared():
            return Message(partial(self.pgconn.send_close_prepared, name))
        return Message(partial(self.pgconn.send_query_params, b"DEALLOCATE " + name, None))  # libpq before version 17


def _conversation_id(parameters: Any) -> str:
    value = parameters.get("conversation_id") if isinstance(parameters, Mapping) else None
    return str(value) if isinstance(value, UUID) else ""


def _text(query: Any, connection: ScopedConnection) -> str:
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return query.decode() if isinstance(query, bytes) else str(query)


def _with_numbers(text: str, parameters: Any) -> tuple[bytes, Sequence[Any]]:
    """Return the text with numbered placeholders, and the values for them."""
    if parameters is None:
        return text.encode(), ()
    numbered, names = _numbered(text)
    if isinstance(parameters, Mapping):
        return numbered, [parameters[name] for name in names]
    return numbered, parameters


_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|(s)|(%))")


@lru_cache(maxsize=512)
def _numbered(text: str) -> tuple[bytes, Sequence[str]]:
    """Return a text with ``$1`` for psycopg's ``%(name)s`` or ``%s``, and the names in the order of their numbers."""
    names: list[str] = []

    def number(placeholder: re.Match[str]) -> str:
        name, _, percent = placeholder.groups()
        if percent is not None:
            return "%"
        if name is None or name not in names:
            names.append(name or "")
        return f"${names.index(name) + 1 if name is not None else len(names)}"

    return _PLACEHOLDER.sub(number, text).encode(), names


_SET_CALLER, _ = _numbered(load_query("eventstore.database", "set_caller"))
_SET_CALLER_NAME = statement_name(_SET_CALLER, (), b"eventstore_set_caller")
