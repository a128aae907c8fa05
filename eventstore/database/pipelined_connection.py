"""A connection that runs prepared statements in order, with a callback for each result.

psycopg's cursors adapt parameters and rows and wait in a coroutine; for a statement of a tenth of a millisecond that
takes longer than the statement. This connection hands bytes to libpq (``psycopg.pq``), and the event loop calls back
when the result has arrived. Whatever else arrives, such as a notification or the end of the connection, is noticed at
once, also while no statement is in flight.

A statement may have a prelude in its own transaction: both precede one Sync of the protocol (libpq's pipeline
mode), in one round trip.
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
        name: the name of the prepared statement: the label that is passed in, and a hash.
        types: OIDs of the parameters' types.
    """

    name: bytes
    text: bytes
    types: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", statement_name(self.text, self.types, self.name))


Prelude = tuple[Statement, Sequence[bytes]]
"""A statement and its parameters, whose rows are discarded."""
ResultCallback = Callable[[PGresult | psycopg.Error], None]
"""Called with the result of a statement, or the error that it ended in."""

CANCEL_SECONDS = 1.0
"""The time limit of a request to cancel, and then of the server's response to it."""

_OK = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_UNCONFIRMED = "the wait for the synchronous standby was canceled after the local commit"


class PipelinedConnection:
    """A connection that runs prepared statements, for the callbacks of one event loop.

    Attributes:
        sent_at: when the statement in flight was sent, by the clock of the event loop.
        is_broken: the connection has ended.
        is_unanswered: the connection was closed because the server answered neither the statement nor its cancellation.
    """

    def __init__(
        self,
        connection: Connection,
        on_broken: Callable[[PipelinedConnection], None],
        on_notify: Callable[[], None] | None = None,
    ) -> None:
        """Take over a connection.

        Args:
            on_broken: called once when the connection has ended, for whatever reason.
            on_notify: called for each notification.
        """
        self._connection = connection
        self._pgconn = connection.pgconn
        self._liveness = connection.liveness
        self._on_broken = on_broken
        self._on_notify = on_notify
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._callback: ResultCallback | None = None
        self._result: PGresult | None = None
        self._is_pipelined = False
        self._preparing = b""
        self._prepared: set[bytes] = set()
        self._cancellation: asyncio.Task[None] | None = None
        self._is_unconfirmed = False
        self.sent_at: float | None = None
        self.is_broken = False
        self.is_unanswered = False
        connection.add_notice_handler(self._on_notice)
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def is_idle(self) -> bool:
        """True if :meth:`send` may be called."""
        return self._callback is None and not self.is_broken and self._cancellation is None

    async def prepare(self, statements: Sequence[Statement]) -> None:
        """Prepare statements, for the life of the connection. If that fails, the connection is closed."""
        try:
            for statement in statements:
                prepared: asyncio.Future[None] = self._loop.create_future()

                def on_result(result: PGresult | psycopg.Error, prepared: asyncio.Future[None] = prepared) -> None:
                    if prepared.done():
                        return
                    if isinstance(result, psycopg.Error):
                        prepared.set_exception(result)
                    else:
                        prepared.set_result(None)

                self._begin(on_result)
                self._pgconn.send_prepare(statement.name, statement.text, list(statement.types))
                self._flush()
                await prepared
        except BaseException:
            self.close()
            raise

    def send(
        self,
        statement: Statement,
        parameters: Sequence[bytes],
        on_result: ResultCallback,
        prelude: Prelude | None = None,
    ) -> None:
        """Run a prepared statement. ``on_result`` is called once; before this returns if the connection breaks.

        Args:
            prelude: a statement that runs first in the same transaction. It is prepared at its first use.
        """
        self._begin(on_result)
        try:
            if prelude is not None:
                self._send_prelude(*prelude)
            self._execute(statement, parameters)
            if self._is_pipelined:
                self._pgconn.pipeline_sync()
            self._flush()
        except psycopg.Error as error:
            self._break(error)

    def close(self) -> None:
        """Close the connection; a statement in flight ends in an error."""
        self._break(psycopg.OperationalError("the connection was closed"))

    def give_up(self) -> None:
        """Cancel the statement in flight, and close the connection.

        The statement's result is reported as usual; if the server does not answer even then, as an error.
        """
        if self._cancellation is None and self._callback is not None:
            self._cancellation = asyncio.create_task(self._cancel(), name="eventstore-cancel")

    async def _cancel(self) -> None:
        try:
            await self._connection.cancel_safe(timeout=CANCEL_SECONDS)
            await asyncio.sleep(CANCEL_SECONDS)
        except psycopg.Error:
            pass
        self.is_unanswered = not self.is_broken
        self._break(psycopg.OperationalError("the server did not answer in time"))

    def _begin(self, on_result: ResultCallback) -> None:
        if not self.is_idle:
            raise AssertionError("a statement is in flight")
        self._callback = on_result
        self._result = None
        self._is_unconfirmed = False
        self.sent_at = self._loop.time()
        self._liveness.begin()

    def _send_prelude(self, statement: Statement, parameters: Sequence[bytes]) -> None:
        if not self._is_pipelined:
            self._pgconn.enter_pipeline_mode()  # for good: more preludes will follow
            self._is_pipelined = True
        if statement.name not in self._prepared:
            self._pgconn.send_prepare(statement.name, statement.text, list(statement.types))
            self._preparing = statement.name
        self._execute(statement, parameters)

    def _execute(self, statement: Statement, parameters: Sequence[bytes]) -> None:
        self._pgconn.send_query_prepared(statement.name, parameters, [Format.BINARY] * len(parameters), Format.BINARY)

    def _flush(self) -> None:
        if self._pgconn.flush():
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        self._liveness.received()
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._break(error)

    def _on_readable(self) -> None:
        self._liveness.received()
        try:
            self._pgconn.consume_input()
            self._report_notifications()
            while self._callback is not None and not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if not self._is_complete(result):
                    continue
                last, self._result = self._result, None
                if last is None:
                    raise psycopg.OperationalError("the server closed the connection unexpectedly")
                if last.status in _OK:
                    self._finish(psycopg.OperationalError(_UNCONFIRMED) if self._is_unconfirmed else last)
                elif (error := error_from_result(last)).diag.severity_nonlocalized == "FATAL":
                    self._break(error)
                else:
                    self._finish(error)
            self._report_notifications()  # those that arrived in one packet with the result, after it
        except psycopg.Error as error:
            self._break(error)

    def _is_complete(self, result: PGresult | None) -> bool:
        """Take one of libpq's results; return whether it completes the statement.

        The statement's own result is the last one, or the first that is an error.
        """
        if not self._is_pipelined:
            self._result = self._result if result is None else result
            return result is None
        if result is None:  # the end of one of several results, unless nothing more can arrive
            return self._pgconn.status != ConnStatus.OK
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        if result.status == ExecStatus.COMMAND_OK:  # the prelude is prepared, whatever the outcome of the rest
            self._prepared.add(self._preparing)
        if self._result is None or self._result.status in _OK:
            self._result = result
        return False

    def _report_notifications(self) -> None:
        while not self.is_broken and self._pgconn.notifies() is not None:
            if self._on_notify is not None:
                self._on_notify()

    def _on_notice(self, notice: psycopg.errors.Diagnostic) -> None:
        # The statement was canceled, so its commit did not wait for the synchronous standby.
        self._is_unconfirmed |= notice.source_function == "SyncRepWaitForLSN"

    def _finish(self, result: PGresult | psycopg.Error) -> None:
        callback, self._callback = self._callback, None
        self.sent_at = None
        self._liveness.end()
        if callback is not None:
            callback(result)
        if self._cancellation is not None and not self.is_broken:
            # A late cancellation would hit the next statement.
            self._break(psycopg.OperationalError("the statement was canceled"))

    def _break(self, error: psycopg.Error) -> None:
        if not self.is_broken:
            self.is_broken = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._pgconn.finish()
            if self._cancellation is not None and self._cancellation is not asyncio.current_task(self._loop):
                self._cancellation.cancel()
            self._on_broken(self)
        if self._liveness.reason and error.sqlstate is None:
            error = psycopg.OperationalError(self._liveness.reason)
        self._finish(error)
