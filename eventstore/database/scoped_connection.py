"""A connection whose queries carry their scope: settings and query travel in one round trip and transaction.

So does the role: a pooler may lend a session in which another part has taken another one, such as the projector's, who
sees all.

Both stand before one Sync of the protocol, so that they are one transaction without BEGIN and COMMIT. What was said of
the caller is forgotten with it: the next question on the connection is asked for nobody, until it says for whom, and a
pooler may give each transaction another session. psycopg's own pipeline costs a third of a page of messages; here libpq
is handed the messages directly (``psycopg.pq``), as in ``pipelined_connection.py``.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import abc, capabilities, sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

from eventstore.database.connection import LOGIN, DeadlineConnection, statement_name
from eventstore.database.queries import query as sql_text
from eventstore.scope import Caller

USES_TO_PREPARE = 5
"""A text that is asked so often on a connection is prepared there."""
MOST_PREPARED = 100

_NOBODY = (b"", b"")
_PLACE = re.compile(r"%(?:\((\w+)\)s|(s)|(%))")

Kind = type[psycopg.AsyncCursor[TupleRow]]
Key = tuple[bytes, tuple[int, ...]]
"""A text, and the types of its parameters."""


class Step(NamedTuple):
    """A message to the server, and what is to be remembered once it is carried out, whatever becomes of the others."""

    send: Callable[[], None]
    done: Callable[[], None] = lambda: None


class ScopedConnection(DeadlineConnection):
    """A connection in all else like any other; one coroutine uses it at a time.

    Attributes:
        role: as which it asks.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._transformers: dict[Kind, tuple[abc.Transformer, Format]] = {}
        self._statements = _Statements()
        self._can_say = False
        self.role = LOGIN

    async def ask(self, query: Any, parameters: Any, caller: Caller | None, kind: Kind) -> list[TupleRow]:
        """The rows of a query, asked for a caller; None is nobody.

        The conversation that the query is about, for the wall to know, is its parameter ``conversation_id``.

        Args:
            kind: the cursor whose way of reading values is followed.
        """
        transformer, result_format = self._transformers.get(kind) or self._prepare_to_read(kind)
        text, values = _numbered_with(_text(query, self), parameters)
        given = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        steps: list[Step] = []
        self._say(caller, _conversation_of(parameters), steps)
        types, formats = transformer.types or (), list(transformer.formats or ())
        name = self._statements.name(self.pgconn, (text, tuple(types)), steps)
        if name is None:
            steps.append(Step(partial(self.pgconn.send_query_params, text, given, types, formats, result_format)))
        else:
            steps.append(Step(partial(self.pgconn.send_query_prepared, name, given, formats, result_format)))
        result = await self.wait(_in_one_transaction(self.pgconn, steps, self.info.encoding))
        if result.status != ExecStatus.TUPLES_OK:
            return []
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    def _say(self, caller: Caller | None, conversation: str, steps: list[Step]) -> None:
        if not self._can_say:
            steps.append(
                Step(partial(self.pgconn.send_prepare, _SET_CALLER_NAME, _SET_CALLER), self._can_say_from_now_on)
            )
        who = _NOBODY if caller is None else (caller.tenant.encode(), (caller.user or "").encode())
        said = [self.role.encode(), *who, conversation.encode()]
        steps.append(Step(partial(self.pgconn.send_query_prepared, _SET_CALLER_NAME, said)))

    def _can_say_from_now_on(self) -> None:
        self._can_say = True

    def _prepare_to_read(self, kind: Kind) -> tuple[abc.Transformer, Format]:
        cursor = kind(self)
        reads = self._transformers[kind] = Transformer(cursor), cursor.format
        return reads


class _Statements:
    """The texts that a connection is asked, and the names of those that are prepared there."""

    def __init__(self) -> None:
        self._uses: OrderedDict[Key, int] = OrderedDict()
        self._names: dict[Key, bytes] = {}

    def name(self, pgconn: PGconn, key: Key, steps: list[Step]) -> bytes | None:
        """The name under which to ask, prepared by a further step if need be; None where it is not worth it yet."""
        uses = self._uses[key] = self._uses.pop(key, 0) + 1
        if len(self._uses) > MOST_PREPARED:
            oldest, _ = self._uses.popitem(last=False)
            if (given_up := self._names.pop(oldest, None)) is not None:
                steps.append(_forgetting(pgconn, given_up))
        if uses < USES_TO_PREPARE:
            return None
        name = self._names.get(key)
        if name is None:
            name = statement_name(*key)
            done = partial(self._names.__setitem__, key, name)
            steps.append(Step(partial(pgconn.send_prepare, name, *key), done))
        return name


def _forgetting(pgconn: PGconn, name: bytes) -> Step:
    """A pooler gives prepared statements names of its own, and knows which is meant only by the protocol's message."""
    if capabilities.has_send_close_prepared():
        return Step(partial(pgconn.send_close_prepared, name))
    return Step(partial(pgconn.send_query_params, b"DEALLOCATE " + name, None))  # libpq before version 17


def _in_one_transaction(pgconn: PGconn, steps: Sequence[Step], encoding: str) -> abc.PQGen[PGresult]:
    """Sends messages before one Sync, and returns the result of the last."""
    results: list[PGresult] = []
    try:
        pgconn.enter_pipeline_mode()
        for step in steps:
            step.send()
        pgconn.pipeline_sync()
        while pgconn.flush():
            if (yield Wait.RW) & Ready.R:
                pgconn.consume_input()
        while True:
            while pgconn.is_busy():
                while not (yield Wait.R):
                    continue
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
                break
            if result is not None:
                results.append(result)
            elif pgconn.status != ConnStatus.OK:  # otherwise it is only the end of one result
                raise _fatal(results, encoding)
        pgconn.exit_pipeline_mode()
    except BaseException:
        pgconn.finish()  # nobody knows what is still to come on it
        raise
    for step, result in zip(steps, results, strict=True):
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding)
        step.done()
    return results[-1]


def _fatal(results: Sequence[PGresult], encoding: str) -> psycopg.Error:
    """Why the server has ended the connection, if it said so."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            return error_from_result(result, encoding)
    return psycopg.OperationalError("the server closed the connection unexpectedly")


def _conversation_of(parameters: Any) -> str:
    if isinstance(parameters, Mapping) and isinstance(named := parameters.get("conversation_id"), UUID):
        return str(named)
    return ""


def _text(query: Any, connection: ScopedConnection) -> str:
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return query.decode() if isinstance(query, bytes) else str(query)


def _numbered_with(text: str, parameters: Any) -> tuple[bytes, Sequence[Any]]:
    """The text with numbered places, and the values for them."""
    if parameters is None:
        return text.encode(), ()
    numbered, names = _numbered(text)
    if isinstance(parameters, Mapping):
        return numbered, [parameters[name] for name in names]
    return numbered, parameters


@lru_cache(maxsize=512)
def _numbered(text: str) -> tuple[bytes, Sequence[str]]:
    """From psycopg's ``%(name)s``, or ``%s``, to ``$1``; and the names, in the order of their numbers."""
    names: list[str] = []

    def number(place: re.Match[str]) -> str:
        name, _, percent = place.groups()
        if percent is not None:
            return "%"
        if name is None or name not in names:
            names.append(name or "")
        return f"${names.index(name) + 1 if name is not None else len(names)}"

    return _PLACE.sub(number, text).encode(), names


_SET_CALLER, _ = _numbered(sql_text("eventstore.database", "caller"))
_SET_CALLER_NAME = statement_name(_SET_CALLER, (), b"eventstore_set_caller")
