"""Two servers of one database, each of which can be the primary or the standby of the other one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from eventstore.database.embedded.installation import choose_account, find_binaries
from support.network import Network
from support.servers import BIN_DIR, memory_folder, open_folder
from support.waiting import until

LOGIN, DATABASE = "agents", "flowagents"

_RULES = "local all all trust\nlocal replication all trust\nhost all all samenet trust\n"
"""The sockets lie in private folders, and the only network that a server may be in ends in this process."""
_SETTINGS = """
listen_addresses = ''
port = 5432
wal_log_hints = on
wal_keep_size = 256MB
max_prepared_transactions = 10
"""


class Node:
    """One server, with its data and its socket in a private folder.

    Attributes:
        name: the ``application_name`` of its replication.
    """

    def __init__(self, folder: Path, name: str, network: Network | None = None) -> None:
        self.name = name
        self._network = network
        self.folder = folder / name
        self._data = self.folder / "data"
        self._account = choose_account(folder)
        self._programs = find_binaries(Path(BIN_DIR) if BIN_DIR else None, self._account)
        self.folder.mkdir(mode=0o700)
        os.chown(self.folder, self._account.uid, self._account.gid)

    @property
    def socket_url(self) -> str:
        """The URL of its database over the socket file."""
        return f"postgresql://{LOGIN}@/{DATABASE}?host={quote(str(self.folder), safe='')}&port=5432"

    @property
    def url(self) -> str:
        """The URL of its database over the network that it is in, or over the socket file if there is none."""
        return f"postgresql://{LOGIN}@{self._network.address}/{DATABASE}" if self._network else self.socket_url

    def conninfo(self, database: str = DATABASE) -> str:
        """The connection string for the superuser."""
        return make_conninfo(host=str(self.folder), port=5432, user="postgres", dbname=database)

    def connect(self, database: str = DATABASE) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the superuser in autocommit mode."""
        return psycopg.connect(self.conninfo(database), autocommit=True)

    def fetch(self, query: str) -> tuple[Any, ...] | None:
        """Run a query as the superuser, and return its first row."""
        with self.connect() as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchone() if cursor.description else None

    def create(self) -> None:
        """Create an empty server with the database and its login, and start it."""
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "--locale=C", "--encoding=UTF8", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        (self._data / "pg_hba.conf").write_text(_RULES)
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE ROLE {LOGIN} LOGIN CREATEROLE")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {LOGIN}")

    def copy(self, primary: Node) -> None:
        """Become a standby of a primary by a copy of it, and start."""
        self._run("pg_basebackup", "-d", self._source(primary), "-D", str(self._data), "-R", "-c", "fast")
        self.start(waits=False)

    def rejoin(self, primary: Node) -> None:
        """Become a standby of the server that was promoted in place of this one, and start."""
        primary.fetch("CHECKPOINT")  # pg_rewind takes the timeline from the last one
        self._run("pg_rewind", "-D", str(self._data), "--source-server", self._source(primary), "-R", "--no-sync")
        self.start(waits=False)

    def start(self, *, waits: bool = True) -> None:
        """Start the server, and wait until it accepts connections, which a standby may do late under load."""
        options = f"-c unix_socket_directories={self.folder}"
        arguments = ["-D", str(self._data), "-l", str(self.folder / "log"), "-w" if waits else "-W", "start", "-o"]
        if self._network is None:
            self._run("pg_ctl", *arguments, options)
            return
        account = [f"--reuid={self._account.uid}", f"--regid={self._account.gid}", "--clear-groups"]
        command = [*self._network.inside, "setpriv", *account, self._programs["pg_ctl"], *arguments]
        subprocess.run(
            [*command, f"{options} -c listen_addresses={self._network.address}"],
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PATH": f"{os.defpath}:/usr/sbin:/sbin"},
        )

    def kill(self, *, at_once: bool) -> None:
        """Kill the postmaster by SIGKILL; either all its processes with it, or they notice that it is gone."""
        postmaster = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes if at_once else [postmaster]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=30)

    def promote(self) -> None:
        """Promote the standby and wait until it accepts writes."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "promote")

    def stop(self) -> None:
        """Stop the server if it runs."""
        with suppress(RuntimeError):
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def require_standby(self, names: str = "*") -> None:
        """Acknowledge commits only once a standby has confirmed them; an empty text requires none."""
        with self.connect() as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")

    def is_synchronous(self) -> bool:
        """Return whether a synchronous standby is connected, and a commit waits for it at this instant.

        The setting alone does not tell: sessions wait only once the checkpointer has read it.
        """
        waits = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"
        row = self.fetch(f"SELECT {waits} AND EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
        return row == (True,)

    def _source(self, primary: Node) -> str:
        return f"{primary.conninfo('postgres')} application_name={self.name}"

    def _run(self, program: str, *arguments: str) -> None:
        done = self._account.run([self._programs[program], *arguments])
        if done.returncode:
            log = self.folder / "log"
            raise RuntimeError(f"{program}: {done.stdout}{log.read_text()[-2000:] if log.exists() else ''}")


class Pair:
    """A primary and its standby.

    Attributes:
        url: names both, and leads to the one that accepts writes.
    """

    def __init__(self, folder: Path) -> None:
        self.primary, self.standby = Node(folder, "one"), Node(folder, "two")
        hosts = ",".join(quote(str(node.folder), safe="") for node in (self.primary, self.standby))
        self.url = f"postgresql://{LOGIN}@/{DATABASE}?host={hosts}&port=5432&target_session_attrs=read-write"

    def fail_over(self, *, at_once: bool) -> None:
        """Kill the primary and promote the standby, which requires no standby of its own yet."""
        self.primary.kill(at_once=at_once)
        self.primary, self.standby = self.standby, self.primary
        self.primary.promote()
        self.primary.require_standby("")

    def rejoin(self) -> None:
        """Bring the killed server back as the standby, and require that it confirms commits again."""
        self.standby.rejoin(self.primary)
        self.primary.require_standby()
        self.until_connected()

    def until_connected(self) -> None:
        """Wait until the standby follows the primary."""
        until(
            lambda: self.primary.fetch("SELECT 1 FROM pg_stat_replication") is not None, "the standby is connected", 120
        )


@contextmanager
def single_server(network: Network | None = None) -> Iterator[Node]:
    """One server with an empty database, inside a network if there is one."""
    with open_folder(memory_folder()) as folder:
        node = Node(folder, "only", network)
        try:
            node.create()
            yield node
        finally:
            node.stop()


@contextmanager
def replicated_pair() -> Iterator[Pair]:
    """A primary with an empty database, and a standby that does not have to confirm commits yet."""
    with open_folder(memory_folder()) as folder:
        pair = Pair(folder)
        try:
            pair.primary.create()
            pair.standby.copy(pair.primary)
            pair.until_connected()
            yield pair
        finally:
            pair.primary.stop()
            pair.standby.stop()
