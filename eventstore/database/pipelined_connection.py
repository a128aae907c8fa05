"""A connection that runs prepared statements in order, in pipeline mode, with a callback for each result.

psycopg's cursors adapt parameters and rows and wait in a coroutine; for a statement of a tenth of a millisecond this
takes longer than the statement. A lane hands bytes to libpq (``psycopg.pq``), and the event loop calls back when
the result is there. What comes back in between, such as the end of the connection, is noticed at once, also at rest.

A statement may have something said before it, in its own transaction: both stand before one Sync of the protocol
(libpq's pipeline mode), in one round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

from eventstore.database.connection import Connection, statement_name


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement whose parameters and results are in binary format.

    Attributes:
        name: of the prepared statement: a label, to which a hash of the statement is appended when this is made.
        types: OIDs of the parameters' types.
    """

    name: bytes
    text: bytes
    types: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", statement_name(self.text, self.types, self.name))


Prelude = tuple[Statement, Sequence[bytes]]
"""A statement and its parameters, whose rows nobody needs."""
ResultCallback = Callable[[PGresult | psycopg.Error], None]
"""Told the result of a statement: its rows, or why there are none."""

CANCEL_SECONDS = 1.0
"""For the server to be asked to cancel a statement, and again for it to answer."""

_DONE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_UNCONFIRMED = "the wait for the synchronous standby was canceled after the local commit"


class PipelinedConnection:
    """One connection and its statements, for the callbacks of one event loop.

    Attributes:
        sent_at: when the statement that is not answered yet was sent, by the clock of the event loop.
        is_broken: the connection has ended.
        is_unanswered: it was ended because the server did not answer, not even to be asked to cancel.
    """

    def __init__(
        self,
        connection: Connection,
        on_broken: Callable[[PipelinedConnection], None],
        on_notify: Callable[[], None] | None = None,
    ) -> None:
        """Takes over a connection.

        Args:
            on_broken: told once that the connection has ended, whoever ended it.
            on_notify: told of each notification that comes.
        """
        self._connection = connection
        self._pgconn = connection.pgconn
        self._liveness = connection.liveness
        self._on_broken = on_broken
        self._on_notify = on_notify
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._done: ResultCallback | None = None
        self._result: PGresult | None = None
        self._is_pipelined = False
        self._saying = b""
        self._can_say: set[bytes] = set()
        self._canceling: asyncio.Task[None] | None = None
        self._is_unconfirmed = False
        self.sent_at: float | None = None
        self.is_broken = False
        self.is_unanswered = False
        connection.add_notice_handler(self._notice)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def is_idle(self) -> bool:
        """Whether :meth:`send` may be called."""
        return self._done is None and not self.is_broken and self._canceling is None

    async def prepare(self, statements: Sequence[Statement]) -> None:
        """Prepares statements, once for the connection's life."""
        for statement in statements:
            prepared: asyncio.Future[None] = self._loop.create_future()

            def done(result: PGresult | psycopg.Error, prepared: asyncio.Future[None] = prepared) -> None:
                if prepared.done():
                    return
                if isinstance(result, psycopg.Error):
                    prepared.set_exception(result)
                else:
                    prepared.set_result(None)

            self._begin(done)
            self._pgconn.send_prepare(statement.name, statement.text, list(statement.types))
            self._flush()
            await prepared

    def send(
        self, statement: Statement, parameters: Sequence[bytes], done: ResultCallback, said: Prelude | None = None
    ) -> None:
        """Runs a prepared statement; ``done`` is called once: later, or before this returns where the lane breaks.

        Args:
            said: what is run before it in its transaction, prepared when it is first said.
        """
        self._begin(done)
        try:
            if said is not None:
                self._say(*said)
            self._run(statement, parameters)
            if self._is_pipelined:
                self._pgconn.pipeline_sync()
            self._flush()
        except psycopg.Error as error:
            self._break(error)

    def _say(self, statement: Statement, parameters: Sequence[bytes]) -> None:
        if not self._is_pipelined:
            self._pgconn.enter_pipeline_mode()  # and stays in it: there will be more to say
            self._is_pipelined = True
        if statement.name not in self._can_say:
            self._pgconn.send_prepare(statement.name, statement.text, list(statement.types))
            self._saying = statement.name
        self._run(statement, parameters)

    def _run(self, statement: Statement, parameters: Sequence[bytes]) -> None:
        self._pgconn.send_query_prepared(statement.name, parameters, [Format.BINARY] * len(parameters), Format.BINARY)

    def close(self) -> None:
        """Closes the connection; a statement under way is told that it is lost."""
        self._break(psycopg.OperationalError("the connection was closed"))

    def give_up(self) -> None:
        """Cancel the statement that is not answered yet, and close the connection.

        What comes of the statement is told as usual. If the server does not answer even then, the statement is lost.
        """
        if self._canceling is None and self._done is not None:
            self._canceling = asyncio.create_task(self._cancel(), name="eventstore-cancel")

    async def _cancel(self) -> None:
        try:
            await self._connection.cancel_safe(timeout=CANCEL_SECONDS)
            await asyncio.sleep(CANCEL_SECONDS)
        except psycopg.Error:
            pass
        self.is_unanswered = not self.is_broken
        self._break(psycopg.OperationalError("the server did not answer in time"))

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        """Notice that the commit did not wait for the synchronous standby, because somebody canceled the statement."""
        self._is_unconfirmed |= notice.source_function == "SyncRepWaitForLSN"

    def _begin(self, done: ResultCallback) -> None:
        if not self.is_idle:
            raise AssertionError("a lane runs one statement at a time")
        self._done = done
        self._result = None
        self._is_unconfirmed = False
        self.sent_at = self._loop.time()
        self._liveness.begin()

    def _flush(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._writable)

    def _writable(self) -> None:
        self._liveness.heard()
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._break(error)

    def _readable(self) -> None:
        self._liveness.heard()
        try:
            self._pgconn.consume_input()
            self._hear()
            while self._done is not None and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if not self._is_last(result):
                    continue
                last, self._result = self._result, None
                if last is None:
                    raise psycopg.OperationalError("the server closed the connection unexpectedly")
                if last.status in _DONE:
                    self._finish(psycopg.OperationalError(_UNCONFIRMED) if self._is_unconfirmed else last)
                elif (error := error_from_result(last)).diag.severity_nonlocalized == "FATAL":
                    self._break(error)
                else:
                    self._finish(error)
            self._hear()  # what came in one packet with the result, after it
        except psycopg.Error as error:
            self._break(error)

    def _is_last(self, result: PGresult | None) -> bool:
        """Whether all results of a statement are there; the last one counts, or the first that is an error."""
        if not self._is_pipelined:
            self._result = self._result if result is None else result
            return result is None
        if result is None:  # the end of one of several, unless nothing more can come
            return self._pgconn.status != ConnStatus.OK
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        if result.status == ExecStatus.COMMAND_OK:  # it is prepared, whatever becomes of the others
            self._can_say.add(self._saying)
        if self._result is None or self._result.status in _DONE:
            self._result = result
        return False

    def _hear(self) -> None:
        while not self.is_broken and self._pgconn.notifies() is not None:
            if self._on_notify is not None:
                self._on_notify()

    def _finish(self, outcome: PGresult | psycopg.Error) -> None:
        done, self._done = self._done, None
        self.sent_at = None
        self._liveness.end()
        if done is not None:
            done(outcome)
        if self._canceling is not None and not self.is_broken:
            self._break(psycopg.OperationalError("the statement was canceled"))  # or a late cancel meets the next one

    def _break(self, error: psycopg.Error) -> None:
        if not self.is_broken:
            self.is_broken = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._pgconn.finish()
            if self._canceling is not None and self._canceling is not asyncio.current_task(self._loop):
                self._canceling.cancel()
            self._on_broken(self)
        if self._liveness.reason and error.sqlstate is None:
            error = psycopg.OperationalError(self._liveness.reason)
        self._finish(error)
