"""Finding the embedded server or starting it, through a keeper. Everything here happens under ``start.lock``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from eventstore.database import keeper
from eventstore.database.cluster import SOCKET_PORT, Cluster, explained
from eventstore.database.locks import is_free, open_private
from eventstore.database.postmaster import await_ready, find_server, read_postmaster
from eventstore.errors import EmbeddedServerError

# A found server may be on its way out, and a new one may be killed while it starts; another start follows then.
_ATTEMPTS = 5
_FAILURES = ("FATAL:", "PANIC:", "error", "No space left on device")


class Launch:
    """One look for the server, and its start if there is none.

    Args:
        pg_port: the TCP port for a start.
        start_lock: the descriptor of the held lock, handed on to the processes that carry the start.
    """

    def __init__(self, cluster: Cluster, pg_port: int | None, start_lock: int) -> None:
        self._cluster = cluster
        self._pg_port = pg_port
        self._start_lock = start_lock

    def find_or_start(self) -> bool:
        """Return when the server accepts connections: True if it already ran, False if it was started.

        Raises:
            EmbeddedServerError: it cannot be started.
            DiskFull: no space is left for it.
        """
        for _ in range(_ATTEMPTS):
            running = find_server(self._cluster.data_dir, self._cluster.account)
            if running is None:
                if self._start():
                    return False
                continue
            if is_free(self._cluster.data_dir / "keeper.lock"):
                self._adopt(running.pid)
            if await_ready(self._cluster.pgdata, running.pid):
                return True
        raise EmbeddedServerError(
            f"the server keeps being stopped or killed by somebody: see {self._cluster.data_dir / 'server.log'}"
        )

    def _start(self) -> bool:
        """Start the server. False if it was killed while it started, rather than failed."""
        cluster = self._cluster
        cluster.make(self._start_lock)
        cluster.write_access_rules()
        socket_dir = cluster.make_socket_folder(self._pg_port or SOCKET_PORT)
        stale = read_postmaster(cluster.pgdata)
        order = self._order()
        order["environment"] = cluster.environment(None if stale is None else stale.pid)
        with self._log() as log, cluster.account.way_to(cluster.pgdata) as (path, hand_on):
            begin = os.fstat(log).st_size
            order["command"] = cluster.command(path, socket_dir, self._pg_port)
            order["hand_on"] = list(hand_on)
            if await_ready(cluster.pgdata, self._give(order, log)):
                return True
            words = os.pread(log, 1024 * 1024, begin).decode(errors="replace")
        if any(word in words for word in _FAILURES):
            raise explained("the server did not start", words, cluster.data_dir)
        return False

    def _adopt(self, pid: int) -> None:
        order = self._order()
        order["adopt"] = pid
        with self._log() as log:
            self._give(order, log)

    def _give(self, order: keeper.Order, log: int) -> int:
        """Run a new keeper with this order. Returns the server's process id."""
        done = subprocess.run(
            [sys.executable, "-I", keeper.__file__],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            pass_fds=(self._start_lock, *order["hand_on"]),
            start_new_session=True,
            check=False,
        )
        answer = json.loads(done.stdout or b"{}")
        if "pid" not in answer:
            reason = answer.get("error", f"see {self._cluster.data_dir / 'server.log'}")
            raise EmbeddedServerError(f"the server's keeper did not start: {reason}")
        return int(answer["pid"])

    def _order(self) -> keeper.Order:
        account = self._cluster.account
        return keeper.Order(
            data_dir=str(self._cluster.data_dir),
            start_lock=self._start_lock,
            adopt=None,
            command=[],
            hand_on=[],
            environment={},
            user=account.uid if account.other else None,
            group=account.gid if account.other else None,
            groups=list(account.groups) if account.other else None,
        )

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        # The keeper reads it too, to keep its end when it has grown too long.
        fd = open_private(self._cluster.data_dir / "server.log", os.O_RDWR | os.O_APPEND)
        try:
            yield fd
        finally:
            os.close(fd)
